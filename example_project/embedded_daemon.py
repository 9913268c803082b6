"""
A plain daemon that hands work to children and stays small itself. No Django in here.

The loop is the daemon's own: the executor adds one descriptor to it, and starts no thread.
It listens on a loopback port and takes one JSON object on a line from each client:

    $ python embedded_daemon.py --port 4000 &
    $ echo '{"work": "count_primes", "argument": 50000}' | nc 127.0.0.1 4000
    {"outcome": "returned", "value": 5133, "message": ""}
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import signal
import socket
import time

from dayfly.executor import Call, Executor, Limits, RunReport, load_value


# Plain functions at module level. Whatever they allocate, leak or break goes with their child.
def count_primes(below: int) -> int:
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))


WORK = {"count_primes": count_primes, "sleep": time.sleep}


class Daemon:
    def __init__(self, port: int, executor: Executor, limits: Limits) -> None:
        self.executor, self.limits = executor, limits
        self.clients: dict[str, socket.socket] = {}  # by the id of the call they wait for
        self.server = socket.create_server(("127.0.0.1", port))
        # Signal handlers do nothing here: Python writes a byte for each signal, which wakes the loop.
        self.bell, self.rope = socket.socketpair()
        self.rope.setblocking(False)
        signal.set_wakeup_fd(self.rope.fileno())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        # An executor has a fileno(), as a socket has: readable when a child wants something.
        self.selector = selectors.DefaultSelector()
        for source in (self.server, self.bell, executor):
            self.selector.register(source, selectors.EVENT_READ)

    def serve_until_signal(self) -> None:
        while True:
            # Not for ever: a time limit may pass although no descriptor has anything to say.
            for key, _ in self.selector.select(self.executor.seconds_to_next_event()):
                if key.fileobj is self.bell:
                    return
                if key.fileobj is self.server:
                    self.take(self.server.accept()[0])
            # Starts what was submitted, ends what is late, returns what is known.
            for report in self.executor.poll(timeout=0):
                self.answer(report)

    def take(self, client: socket.socket) -> None:
        """Read one line, and submit what it asks for."""
        client.settimeout(1.0)  # nobody holds up the loop for long
        try:
            with client.makefile("rb") as lines:
                order = json.loads(lines.readline(10_000))
            call = Call.of(WORK[order["work"]], order["argument"], limits=self.limits)
        except (OSError, ValueError, LookupError, TypeError) as error:
            self.reply(client, {"outcome": "refused", "message": repr(error)})
        else:
            self.clients[self.executor.submit(call)] = client

    def answer(self, report: RunReport) -> None:
        """Each call has exactly one report, whatever became of its child."""
        peak = report.peak_rss_bytes and f"{report.peak_rss_bytes / 1e6:.1f} MB"  # None: unknown
        print(f"child {report.child_pid} {report.outcome}: peak {peak}", flush=True)
        answer = {"outcome": report.outcome, "value": load_value(report), "message": report.message}
        self.reply(self.clients.pop(report.call_id), answer)

    def reply(self, client: socket.socket, answer: dict[str, object]) -> None:
        with client, contextlib.suppress(OSError):  # a client that did not wait
            client.sendall(json.dumps(answer).encode() + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer JSON lines; a child works on each.")
    parser.add_argument("--port", type=int, default=4000, help="0: any free one")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds for a call")
    options = parser.parse_args()
    with Executor(concurrency=2) as executor:
        executor.warm_up()  # everything is imported: freeze the heap, and fork children ahead
        daemon = Daemon(options.port, executor, Limits(timeout_seconds=options.time_limit))
        print("listening on {}:{}".format(*daemon.server.getsockname()), flush=True)
        daemon.serve_until_signal()
    print("stopped")  # leaving the `with` ended what still ran: no child is left


if __name__ == "__main__":
    main()
