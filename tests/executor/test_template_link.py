"""What a parent asks a template, however much that is."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dayfly.executor.template_link import MOST_UNANSWERED, Answer, Template
from tests.helpers import run_script

QUESTIONS = 1_000


@pytest.fixture
def template_and_its_end() -> Iterator[tuple[Template, socket.socket]]:
    """A template that this test answers for: the process does nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # a question that had to wait would fail
    theirs.setblocking(False)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    template = Template(process.pid, ours, start_seconds=10, unwatch=lambda fd: None)
    with theirs, process:
        yield template, theirs
        template.give_up()


def test_more_questions_than_a_socket_holds_are_answered_in_order(
    template_and_its_end: tuple[Template, socket.socket],
) -> None:
    template, its_end = template_and_its_end
    answers: list[Answer | None] = []

    for number in range(QUESTIONS):
        template.ask({"number": number}, [], answers.append)
    while not template.is_gone and len(answers) < QUESTIONS:
        its_end.send(its_end.recv(4096))
        template.hear()

    assert [answer and answer["number"] for answer in answers] == list(range(QUESTIONS))


def test_what_was_not_yet_asked_of_a_dead_template_is_answered(
    template_and_its_end: tuple[Template, socket.socket],
) -> None:
    template, _ = template_and_its_end
    answers: list[Answer | None] = []

    for number in range(2 * MOST_UNANSWERED):
        template.ask({"number": number}, [], answers.append)
    template.give_up()

    assert answers == [None] * 2 * MOST_UNANSWERED


MANY = """
    import resource
    from dayfly.executor import Call, Executor, load_value
    from tests import calls
    from tests.helpers import eventually

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = 600
    with Executor(launcher="copy", concurrency=count, standby=count) as executor:
        reports = []
        for number in range(2 * count):
            executor.submit(Call.of(calls.returns, number))
        eventually(lambda: reports.extend(executor.poll(0.1)) or len(reports) == 2 * count, within=60)
        print(sorted(map(load_value, reports)) == list(range(2 * count)))
"""


def test_hundreds_of_children_are_born_and_buried() -> None:
    """More than twice what a socket holds of questions and answers."""
    assert run_script(MANY) == "True\n"
