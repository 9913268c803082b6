from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from dayfly import queue
from dayfly.admin import human_bytes, human_seconds, preformatted
from dayfly.ids import uuid7
from dayfly.models import Job, JobStatus, Run
from dayfly.queue import NewRun, Selection, Settlement

HOSTILE = "<script>alert('x')</script>"
MODELS = ("job", "run", "worker")


@pytest.fixture
def rows(job, worker):
    """A job with one run that says hostile things, and the worker of both."""

    def make(number=0):
        added = job(task_path=f"{HOSTILE}.{number}", arguments=f'{{"args":["{HOSTILE}"]}}')
        me = worker(f"w{number}{HOSTILE}")
        (claim,) = queue.claim(
            me.id, Selection(backend_name="default", queues=None), limit=1, using="default"
        )
        run = NewRun(
            job_id=added.id,
            epoch=1,
            attempt=1,
            worker_id=me.id,
            worker_name=me.name,
            task_path=added.task_path,
            outcome="raised",
            message=HOSTILE,
            traceback=f"Traceback {HOSTILE}",
            output=f"line 1\n{HOSTILE}",
            enqueued_at=claim.enqueued_at,
            finished_at=claim.claimed_at + timedelta(seconds=1),
            run_seconds=0.25,
            child_peak_rss_bytes=64_123_456,
        )
        settlement = Settlement(job_id=added.id, epoch=1, status=JobStatus.FAILED, run=run)
        assert queue.finish(me.id, [settlement], using="default")
        return {"job": added, "run": Run.objects.get(id=run.id), "worker": me}

    return make


def page(name, row):
    return reverse(f"admin:dayfly_{name}_change", args=[row.pk])


def listing(name):
    return reverse(f"admin:dayfly_{name}_changelist")


@pytest.mark.parametrize("name", MODELS)
def test_pages_escape_everything(admin_client, rows, name):
    made = rows()

    for url in (listing(name), page(name, made[name])):
        response = admin_client.get(url)
        assert response.status_code == 200
        text = response.content.decode()
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_list_of_runs_says_task_outcome_and_why_first(admin_client, rows):
    made = rows()

    text = admin_client.get(listing("run")).content.decode()

    cells = [text.index(word) for word in ("field-task", "field-outcome", "field-sentence")]
    assert cells == sorted(cells)
    assert cells[-1] < text.index("250.0 ms") < text.index("61.2 MiB")
    job_id = str(made["job"].id)
    assert f"…{job_id[-8:]}" in text
    assert f'title="{job_id}"' in text


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "works"),
        ({"lease_expires_at": "2000-01-01 00:00:00+00:00"}, "silent"),
        ({"stopped_at": "2000-01-01 00:00:00+00:00"}, "stopped"),
        ({"lost_at": "2000-01-01 00:00:00+00:00"}, "lost"),
    ],
)
def test_list_of_workers_says_who_works(admin_client, worker, changes, word):
    me = worker("w1")
    type(me).objects.filter(pk=me.pk).update(**changes)

    text = admin_client.get(listing("worker")).content.decode()

    assert f'field-state">{word}<' in text


def test_page_of_a_job_shows_its_runs(admin_client, rows):
    text = admin_client.get(page("job", rows()["job"])).content.decode()

    assert "raised" in text
    assert "61.2 MiB" in text
    assert "250.0 ms" in text
    assert "Traceback &lt;script&gt;" in text
    assert "<pre" in text


@pytest.mark.parametrize("name", MODELS)
def test_nothing_can_be_added_changed_or_deleted(admin_client, rows, name):
    made = rows()
    url = page(name, made[name])

    assert admin_client.get(reverse(f"admin:dayfly_{name}_add")).status_code == 403
    assert admin_client.post(url, {"task_path": "other"}).status_code == 403
    delete = reverse(f"admin:dayfly_{name}_delete", args=[made[name].pk])
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": made[name].pk, "post": "yes"}
    admin_client.post(listing(name), action)

    kept = type(made[name]).objects.get()
    assert kept.pk == made[name].pk
    text = admin_client.get(url).content.decode()
    assert 'name="_save"' not in text


@pytest.mark.parametrize("name", MODELS)
def test_view_permission_is_needed_and_enough(client, rows, name):
    made = rows()
    user = User.objects.create_user("watcher", password="pw", is_staff=True)
    client.force_login(user)
    url = page(name, made[name])

    assert client.get(url).status_code == 403
    assert client.get(listing(name)).status_code == 403

    user.user_permissions.add(Permission.objects.get(codename=f"view_{name}"))
    client.force_login(User.objects.get(pk=user.pk))
    assert client.get(url).status_code == 200
    assert client.get(listing(name)).status_code == 200


@pytest.mark.parametrize("name", MODELS)
def test_lists_cost_the_same_for_one_row_and_for_many(admin_client, rows, name):
    rows(0)
    with CaptureQueriesContext(connection) as one:
        admin_client.get(listing(name))
    for number in range(1, 6):
        rows(number)

    with CaptureQueriesContext(connection) as six:
        response = admin_client.get(listing(name))

    assert len(response.context["cl"].result_list) == 6
    assert len(six) == len(one)


def test_list_of_runs_leaves_long_texts_alone(admin_client, rows):
    rows()

    with CaptureQueriesContext(connection) as queries:
        admin_client.get(listing("run"))

    assert not [query for query in queries if '"output"' in query["sql"].replace("`", '"')]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("key", ["no-id", "0"])
def test_page_of_nothing_is_not_an_error(admin_client, db, name, key):
    response = admin_client.get(reverse(f"admin:dayfly_{name}_change", args=[key]))

    assert response.status_code == 302


@pytest.mark.parametrize("wanted", ["path", "id"])
def test_search_finds_by_path_and_by_id(admin_client, job, wanted):
    found = job(task_path="shop.tasks.send")
    job(task_path="other.tasks.send")
    query = "shop" if wanted == "path" else str(found.id)

    response = admin_client.get(listing("job"), {"q": query})

    assert [row.pk for row in response.context["cl"].result_list] == [found.pk]


@pytest.mark.parametrize("name", MODELS)
def test_search_for_an_id_asks_the_primary_key(admin_client, rows, name):
    wanted = rows()[name]

    with CaptureQueriesContext(connection) as queries:
        response = admin_client.get(listing(name), {"q": f" {wanted.pk}"})

    assert [row.pk for row in response.context["cl"].result_list] == [wanted.pk]
    assert not [query for query in queries if "LIKE" in query["sql"] or "UPPER" in query["sql"]]


def test_filters_are_made_without_reading_every_job(admin_client, job):
    job(queue_name="waits")

    with CaptureQueriesContext(connection) as queries:
        text = admin_client.get(listing("job")).content.decode()

    assert not [query for query in queries if "DISTINCT" in query["sql"]]
    for name in ("?backend_name=second", "?queue_name=reports", "?queue_name=waits"):
        assert name in text


class Elsewhere:
    """A router that does not know where our tables are."""

    def db_for_read(self, model, **hints):
        return "nowhere" if model._meta.app_label == "dayfly" else None


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_read_from_where_the_option_says(admin_client, rows, settings, name):
    made = rows()
    backend = {"BACKEND": "dayfly.backend.DatabaseBackend", "OPTIONS": {"DATABASE": "default"}}
    settings.TASKS = {"default": backend}
    settings.DATABASE_ROUTERS = ["tests.test_admin.Elsewhere"]

    response = admin_client.get(listing(name))
    assert [row.pk for row in response.context["cl"].result_list] == [made[name].pk]
    assert admin_client.get(page(name, made[name])).status_code == 200


def test_filters_narrow_the_list(admin_client, job):
    job(queue_name="mail")
    job()

    response = admin_client.get(listing("job"), {"queue_name": "mail", "status__exact": "READY"})

    assert [row.queue_name for row in response.context["cl"].result_list] == ["mail"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (-5 * 1024**2, "-5.0 MiB"),
        (3 * 1024**3, "3.0 GiB"),
        (2000 * 1024**4, "2000.0 TiB"),
    ],
)
def test_sizes_have_units(value, shown):
    assert human_bytes(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(None, "-"), (0.0021, "2.1 ms"), (75, "75.00 s")])
def test_durations_have_units(value, shown):
    assert human_seconds(value) == shown


def test_very_long_text_is_cut():
    shown = preformatted("a" * 200_000 + "end")

    assert len(shown) < 101_000
    assert shown.endswith("end</pre>")


def test_unknown_job_has_no_page(admin_client, db):
    assert not Job.objects.filter(pk=uuid7()).exists()
    assert admin_client.get(page("job", Job(id=uuid7()))).status_code == 302
