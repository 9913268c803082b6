from __future__ import annotations

import ctypes
import functools

import pytest

from dayfly.executor import (
    Call,
    CallNotSendable,
    Executor,
    ExecutorClosed,
    Limits,
    Terms,
    load_value,
    run_call,
)
from dayfly.executor.call import resolve
from tests import calls


@pytest.mark.parametrize(
    "argument", [lambda: None, (number for number in "ab"), ctypes.c_char_p(b"pointer")]
)
def test_argument_that_cannot_be_pickled_is_refused_where_it_is_made(argument: object) -> None:
    with pytest.raises(CallNotSendable, match=r"tests\.calls\.returns cannot be sent to a child"):
        Call.of(calls.returns, argument)


def test_local_function_is_refused() -> None:
    def local() -> None:
        """Do nothing, in a place where no child can find it."""

    with pytest.raises(CallNotSendable, match="Use a function at module level"):
        Call.of(local)


def test_refusal_is_a_type_error_too() -> None:
    with pytest.raises(TypeError):
        Call.of(calls.returns, lambda: None)


def test_title_names_the_function_and_never_its_arguments() -> None:
    assert Call.of(calls.returns, "secret").title == "tests.calls.returns"
    partial = functools.partial(calls.returns, "secret")
    assert Call.of(partial).title == "tests.calls.returns"
    assert "secret" not in Call.of(calls.Adder(5)).title


def test_keyword_arguments_cross() -> None:
    assert load_value(run_call(Call.of(calls.returns, value="by name"))) == "by name"


def test_method_and_partial_can_be_called() -> None:
    assert load_value(run_call(Call.of("abc".upper))) == "ABC"
    assert load_value(run_call(Call.of(functools.partial(calls.returns, 1)))) == 1


def test_every_call_has_an_id_of_its_own() -> None:
    assert Call().call_id != Call().call_id


def test_payload_beyond_the_limit_is_refused_by_submit() -> None:
    with (
        Executor(standby=0, terms=Terms(max_value_bytes=100)) as executor,
        pytest.raises(
            CallNotSendable, match=r"payload of raw\.target is 101 bytes; the limit is 100"
        ),
    ):
        executor.submit(Call(target="raw.target", payload=bytes(101)))


def test_closed_executor_takes_no_calls() -> None:
    executor = Executor(standby=0)
    executor.close()
    executor.close()

    with pytest.raises(ExecutorClosed, match="closed and takes no more calls"):
        executor.submit(Call.of(calls.returns))


def test_resolve_finds_the_function() -> None:
    assert resolve("tests.calls.returns") is calls.returns


@pytest.mark.parametrize("path", ["", "nodots", "tests.calls.nothing", "no.module"])
def test_resolve_refuses_what_is_not_there(path: str) -> None:
    with pytest.raises(ImportError):
        resolve(path)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_time_limit_must_be_above_zero(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        Limits(timeout_seconds=seconds)


@pytest.mark.parametrize("seconds", [-0.1, float("nan")])
def test_grace_must_not_be_negative(seconds: float) -> None:
    with pytest.raises(ValueError, match="grace_seconds"):
        Limits(grace_seconds=seconds)


def test_no_time_limit_and_no_grace_are_limits() -> None:
    assert Limits(timeout_seconds=None, grace_seconds=0).timeout_seconds is None


@pytest.mark.parametrize(
    ("options", "word"),
    [({"concurrency": 0}, "concurrency"), ({"standby": -1}, "standby")],
)
def test_executor_refuses_impossible_counts(options: dict[str, int], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Executor(**options)  # type: ignore[arg-type]
