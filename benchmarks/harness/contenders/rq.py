"""RQ: a worker that forks per job, with its queue in Redis."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import redis
from rq import Queue
from rq.job import Job

from bench_project import work
from bench_project.pace import enqueue_at_random_moments
from harness.contenders.base import Contender
from harness.process import HERE, BenchError, Process
from harness.stamps import Stamps

#: Redis is shared: all that we write has this in its name.
QUEUE_NAME = f"dayfly-bench-{os.getpid()}"


class Rq(Contender):
    """As many `rq worker` processes as jobs at a time, all settings as they come."""

    def queue(self) -> Queue:
        """Return the queue, with a connection of its own."""
        if self.servers.redis_url is None:
            raise BenchError("there is no Redis")
        return Queue(QUEUE_NAME, connection=redis.Redis.from_url(self.servers.redis_url))

    def prepare(self, jobs: int, task: str = "noop") -> None:
        """Enqueue in one pipeline."""
        queue = self.queue()
        self.forget_jobs(queue)
        function = getattr(work, task)
        queue.enqueue_many([Queue.prepare_data(function, args=(number,)) for number in range(jobs)])
        self.stamps = Stamps(self.stamps.path)

    def start(self, concurrency: int, *, drain: bool = True) -> list[Process]:
        """Start one worker per job at a time."""
        rq = str(Path(sys.executable).with_name("rq"))
        command = [sys.executable, rq, "worker", "--url", str(self.servers.redis_url)]
        if drain:
            command.append("--burst")
        return [self.run([*command, "--path", str(HERE), QUEUE_NAME]) for _ in range(concurrency)]

    def verify(self, jobs: int) -> int | None:
        """Count the finished jobs."""
        queue = self.queue()
        done = queue.finished_job_registry.get_job_count(cleanup=False)
        if done != jobs:
            raise BenchError(f"RQ says that {done} of {jobs} jobs finished")
        return None

    def tidy(self) -> None:
        """Leave nothing in Redis."""
        self.forget_jobs(self.queue())

    def enqueue_slowly(self, count: int) -> list[int]:
        """Enqueue from this process."""
        queue = self.queue()
        return enqueue_at_random_moments(
            lambda number: queue.enqueue(work.noop, number), count, self.stamps.path
        )

    def forget_jobs(self, queue: Queue) -> None:
        """Take all our keys out of Redis."""
        registries = (
            queue.started_job_registry,
            queue.finished_job_registry,
            queue.failed_job_registry,
        )
        ids = [job_id for found in registries for job_id in found.get_job_ids(cleanup=False)]
        for job in Job.fetch_many(ids, connection=queue.connection):
            if job is not None:
                job.delete()
        queue.delete(delete_jobs=True)
