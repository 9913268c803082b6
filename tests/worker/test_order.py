"""What a child is told about its job."""

from __future__ import annotations

from datetime import UTC, datetime

from dayfly.worker.order import Order, moment

ORDER = Order(
    job_id="1",
    task_path="a.b",
    backend_name="default",
    queue_name="mail\n",
    priority=-3,
    run_after=None,
    attempt=2,
    enqueued_at="2026-01-02T09:00:00+00:00",
    started_at="2026-01-02T09:00:01+00:00",
    last_attempted_at="2026-01-02T09:00:02+00:00",
    worker_name="é",
)


def test_order_comes_out_as_it_went_in() -> None:
    payload = ORDER.encode('{"args": ["x\\ny"], "kwargs": {"k": 1}}')

    assert Order.decode(payload) == (ORDER, {"args": ["x\ny"], "kwargs": {"k": 1}})


def test_arguments_travel_unread() -> None:
    assert ORDER.encode("not even JSON").endswith(b"\nnot even JSON")


def test_moment_is_read_with_its_zone() -> None:
    assert moment(ORDER.enqueued_at) == datetime(2026, 1, 2, 9, tzinfo=UTC)
    assert moment(None) is None
