"""What the workers of the tests run: one small task for each thing that can happen."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


# Good endings


@task
def returns(value=None):
    return value


@task
def adds(a, b):
    return a + b


@task
async def adds_later(a, b):
    import asyncio

    await asyncio.sleep(0)
    return a + b


@task(takes_context=True)
def tells_context(context, word):
    result = context.task_result
    return [context.attempt, result.id, result.task.queue_name, result.status, word]


@task(takes_context=True)
def tells_attempt(context):
    return context.attempt


@task
def tells_pid():
    return os.getpid()


@task
def uses_the_database():
    from django.contrib.auth.models import Group

    return Group.objects.count()


@task
def starts_others():
    """Run a process and a thread of its own."""
    heard = []
    thread = threading.Thread(target=heard.append, args=("thread",))
    thread.start()
    thread.join()
    done = subprocess.run(
        [sys.executable, "-c", "print('process')"], capture_output=True, text=True
    )
    with __import__("multiprocessing").get_context("fork").Pool(1) as pool:
        heard += pool.map(abs, [-3])
    return [*heard, done.stdout.strip()]


@task
def leaves_a_thread():
    """Leave a thread behind that would run for ever."""
    threading.Thread(target=threading.Event().wait).start()
    return "left"


@task
def prints(text):
    print(text)
    return text


@task
def prints_quietly(text):
    sys.stdout.write(text)


@task
def prints_megabytes(count):
    line = b"x" * 1023 + b"\n"
    for _ in range(count * 1000):
        os.write(1, line)
    print("the end")
    return count


@task
def forks_and_lets_the_copy_return():
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return "the parent of the copy"
    return "the copy"


# Bad endings


@task
def raises(text="no luck"):
    raise ValueError(text)


@task
def sys_exits(code=3):
    sys.exit(code)


@task
def os_exits(code=5):
    os._exit(code)


@task
def segfaults():
    import faulthandler

    faulthandler.disable()
    ctypes.string_at(0)


@task
def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


@task
def leaves_a_process_and_dies(mark):
    """Die, with a process of our own that holds our descriptors and lives on."""
    other = subprocess.Popen(["sleep", "60"])
    Path(mark).write_text(str(other.pid))
    os.kill(os.getpid(), signal.SIGKILL)


@task
def closes_its_descriptors():
    os.closerange(0, 4096)
    return "cannot be sent"


@task
def returns_a_set():
    return {1}


@task
def returns_nan():
    return float("nan")


@task
def returns_bytes():
    return b"\xff\xfe"


@task
def returns_much(count):
    return "x" * count


def not_a_task():
    """Look like one in a row, and nowhere else."""


@task
def prints_and_raises(text):
    print(text)
    raise ValueError(text)


@task
def says_text_of_every_kind(how):
    """Carry text that databases are picky about: a lone surrogate, a NUL, an emoji."""
    text = "a\ud800b\0c\N{SNOWMAN}\N{PILE OF POO}"
    if how == "output":
        os.write(1, text.encode("utf-8", "surrogatepass") + b"\xff")
    if how == "exception":
        raise ValueError(text)
    return text


# Waiting


@task
def waits(mark, until=""):
    """Make the file *mark* with our pid in it, then wait for the file *until*, at most a minute."""
    leave_mark(mark)
    wait_for(until)
    return os.getpid()


@task(takes_context=True)
def waits_the_first_time(context, mark, until=""):
    """Hang in the first run; say in which run it was done."""
    if not os.path.exists(mark):
        leave_mark(mark)
        wait_for(until)
    return context.attempt


@task
def finishes_when_asked_to_stop(mark):
    """Take SIGTERM for a reason to come to an end."""
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    leave_mark(mark)
    while not heard:
        time.sleep(0.005)
    return "in time"


@task
def ignores_sigterm(mark):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leave_mark(mark)
    wait_for("")


def leave_mark(path):
    """Make the file *path*, with our pid in it, in one step."""
    Path(f"{path}.new").write_text(str(os.getpid()))
    os.rename(f"{path}.new", path)


def wait_for(path):
    """Wait until the file *path* exists; "" never does."""
    until = time.monotonic() + 60
    while not (path and os.path.exists(path)):
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.005)


# Traces


@task
def appends(path, line):
    """Append a line to a file, in one system call."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


@task
def counts_in_the_database(name):
    from django.contrib.auth.models import Group

    Group.objects.create(name=name)


@task
def tells_time():
    return time.time()


@task
def tells_place():
    return [os.getcwd(), os.environ["PWD"]]


@task
def changes_directory(path):
    os.chdir(path)


@task
def hoards(megabytes=1):
    """Keep memory for good; say how many do so in this process."""
    hoard.append(bytearray(megabytes << 20))
    return len(hoard)


hoard = []


# The worker's own process


@task
def interrupts_itself():
    signal.raise_signal(signal.SIGINT)


@task
def leaves_a_transaction_open():
    from django.db import connection, transaction

    transaction.atomic().__enter__()
    connection.cursor().execute("SELECT 1")
    return connection.in_atomic_block


@task
def closes_all_connections():
    from django.db import connections

    for connection in connections.all():
        connection.ensure_connection()
        connection.connection.close()


@task
def breaks_a_transaction():
    from django.contrib.auth.models import Group
    from django.db import transaction

    with transaction.atomic():
        Group.objects.create(name="twice")
        Group.objects.create(name="twice")


# Limits


@task
def cleans_up_in_time():
    from dayfly.executor import SoftTimeLimitExceeded

    try:
        time.sleep(600)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@task
def sleeps():
    time.sleep(600)


@task
async def sleeps_in_a_coroutine():
    import asyncio

    await asyncio.sleep(600)


@task
def holds_too_much():
    hoard.append(b"x" * (250 << 20))
    time.sleep(600)


@task
def takes_all_at_once():
    return len(b"x" * (20 << 30))
