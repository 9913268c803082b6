"""
The rows: Job (one enqueued call), Run (one attempt in a child), Worker (one daemon).

Fields, constraints and indexes only. Every statement that locks is in queue/
Figures are null where they are unknown, never zero.
"""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage
from django.db import models
from django.db.models import Q

from dayfly.executor.outcome import Outcome
from dayfly.fields import MomentField, NameField
from dayfly.ids import uuid7

OUTCOME_CHOICES = [(outcome.value, outcome.value.replace("_", " ")) for outcome in Outcome]


class JobStatus(models.TextChoices):
    """What a job is now. SCHEDULED is ours alone: Django Tasks call it READY."""

    SCHEDULED = "SCHEDULED", "Scheduled"
    READY = "READY", "Ready"
    RUNNING = "RUNNING", "Running"
    FAILED = "FAILED", "Failed"
    SUCCESSFUL = "SUCCESSFUL", "Successful"


FINISHED = (JobStatus.FAILED, JobStatus.SUCCESSFUL)


class PartlyIndexed(models.Model):
    """What has indexes with conditions, where MySQL and MariaDB do without the conditions by design."""

    class Meta:
        abstract = True

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        """Check as Django does, but for its warning that indexes have conditions."""
        return [message for message in super().check(**kwargs) if message.id != "models.W037"]


class Worker(PartlyIndexed):
    """One daemon, from its start to its end. Its lease covers all jobs that it holds."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField("worker id", max_length=64)
    backend_name = NameField(max_length=64)
    queues = models.CharField(max_length=500, blank=True)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    settings_module = models.CharField(max_length=255, blank=True)
    concurrency = models.PositiveIntegerField()
    started_at = MomentField()
    heartbeat_at = MomentField()
    lease_expires_at = MomentField()
    stopped_at = MomentField(null=True, blank=True)
    #: Set by the worker that rescued its jobs; from then on its outcomes are refused.
    lost_at = MomentField(null=True, blank=True)
    rss_bytes = models.BigIntegerField(null=True, blank=True)
    anon_bytes = models.BigIntegerField("RssAnon bytes", null=True, blank=True)
    vms_bytes = models.BigIntegerField(null=True, blank=True)
    children = models.PositiveIntegerField(null=True, blank=True)
    children_pss_bytes = models.BigIntegerField(null=True, blank=True)

    class Meta:
        # All three, as MySQL and MariaDB have no partial indexes and would look at every
        # worker that ever was.
        indexes = [
            models.Index(
                fields=["stopped_at", "lost_at", "lease_expires_at"],
                name="dayfly_worker_alive",
                condition=Q(stopped_at__isnull=True, lost_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.host}:{self.pid})"


class Job(PartlyIndexed):
    """One enqueued call of a task."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    backend_name = NameField(max_length=64)
    queue_name = NameField(max_length=128)
    priority = models.SmallIntegerField(default=0)
    task_path = models.CharField(max_length=500)
    #: JSON text {"args": [...], "kwargs": {...}}: the parent passes it on unread.
    arguments = models.TextField()
    status = models.CharField(max_length=16, choices=JobStatus, default=JobStatus.READY)
    enqueued_at = MomentField()
    #: What the caller asked for.
    run_after = MomentField(null=True, blank=True)
    #: What claims are ordered by: run_after, or the moment of enqueueing.
    due_at = MomentField()
    #: Counts claims: the fencing token. An outcome with an older epoch is refused.
    epoch = models.PositiveIntegerField(default=0)
    #: Runs that count against the job; one that our own shutdown cut short does not.
    attempts = models.PositiveIntegerField(default=0)
    #: How often its worker died or went silent while it held the job.
    times_lost = models.PositiveIntegerField(default=0)
    worker = models.ForeignKey(
        Worker,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="jobs",
        db_constraint=False,  # a claim must not lock the worker's row, which heartbeats write
        db_index=False,  # dayfly_job_running has it
    )
    claimed_at = MomentField(null=True, blank=True)
    #: The first attempt's start.
    started_at = MomentField(null=True, blank=True)
    last_attempted_at = MomentField(null=True, blank=True)
    finished_at = MomentField(null=True, blank=True)
    #: JSON text of what the task returned; null unless SUCCESSFUL.
    return_value = models.TextField(null=True, blank=True)  # noqa: DJ001 - "" is not JSON

    class Meta:
        # status stands in each index, as MySQL and MariaDB have no partial indexes and
        # keep finished jobs in them too, apart from the few that claims look at. It does
        # not lead where claims look: PostgreSQL drops the condition that a partial index
        # implies, and has no beginning of the key then to go to.
        indexes = [
            models.Index(
                fields=["backend_name", "status", "-priority", "due_at", "id"],
                name="dayfly_job_ready",
                condition=Q(status="READY"),
            ),
            models.Index(
                fields=["backend_name", "queue_name", "status", "-priority", "due_at", "id"],
                name="dayfly_job_ready_queue",
                condition=Q(status="READY"),
            ),
            models.Index(
                fields=["status", "due_at"],
                name="dayfly_job_scheduled",
                condition=Q(status="SCHEDULED"),
            ),
            models.Index(
                fields=["status", "worker"],
                name="dayfly_job_running",
                condition=Q(status="RUNNING"),
            ),
            models.Index(
                fields=["status", "finished_at"],
                name="dayfly_job_finished",
                condition=Q(status__in=["FAILED", "SUCCESSFUL"]),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(priority__range=(-100, 100)), name="dayfly_job_priority"
            ),
            models.CheckConstraint(
                condition=Q(status__in=JobStatus.values), name="dayfly_job_status"
            ),
            models.CheckConstraint(
                condition=Q(status__in=FINISHED, finished_at__isnull=False)
                | (~Q(status__in=FINISHED) & Q(finished_at__isnull=True)),
                name="dayfly_job_finished_at",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_path} {self.id}"


class Run(models.Model):
    """One attempt of a job in a child: how it ended, and what it used."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="runs", db_index=False)
    #: The epoch of the claim that this run belongs to.
    epoch = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    #: A worker is pruned when none of its runs is left.
    worker = models.ForeignKey(
        Worker,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="runs",
        db_constraint=False,
        db_index=False,
    )
    worker_name = models.CharField("worker id", max_length=64)
    #: Copied from the job, so that statistics per task need no join.
    task_path = models.CharField(max_length=500)
    child_pid = models.PositiveIntegerField(null=True, blank=True)
    child_index = models.PositiveIntegerField("task number in its child", null=True, blank=True)

    outcome = models.CharField(max_length=16, choices=OUTCOME_CHOICES)
    #: One sentence for a person: what happened, and what to do about it.
    message = models.TextField(blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    signal = models.PositiveSmallIntegerField(null=True, blank=True)
    exception_class_path = models.CharField(max_length=500, blank=True)
    traceback = models.TextField(blank=True)
    #: The tail of what was written to stdout and stderr; capped.
    output = models.TextField(blank=True)
    output_bytes = models.BigIntegerField(null=True, blank=True)

    enqueued_at = MomentField()
    claimed_at = MomentField(null=True, blank=True)
    started_at = MomentField(null=True, blank=True)
    finished_at = MomentField()
    queue_wait_seconds = models.FloatField(null=True, blank=True)
    fork_seconds = models.FloatField(null=True, blank=True)
    run_seconds = models.FloatField(null=True, blank=True)

    parent_rss_before_fork_bytes = models.BigIntegerField(null=True, blank=True)
    parent_rss_after_join_bytes = models.BigIntegerField(null=True, blank=True)
    parent_anon_bytes = models.BigIntegerField("parent RssAnon bytes", null=True, blank=True)
    child_rss_start_bytes = models.BigIntegerField(null=True, blank=True)
    child_rss_end_bytes = models.BigIntegerField(null=True, blank=True)
    child_peak_rss_bytes = models.BigIntegerField(null=True, blank=True)
    child_uss_start_bytes = models.BigIntegerField(null=True, blank=True)
    child_uss_end_bytes = models.BigIntegerField(null=True, blank=True)
    child_pss_start_bytes = models.BigIntegerField(null=True, blank=True)
    child_pss_end_bytes = models.BigIntegerField(null=True, blank=True)
    cpu_user_seconds = models.FloatField(null=True, blank=True)
    cpu_system_seconds = models.FloatField(null=True, blank=True)
    minor_faults = models.BigIntegerField(null=True, blank=True)
    major_faults = models.BigIntegerField(null=True, blank=True)
    new_modules = models.PositiveIntegerField(null=True, blank=True)
    payload_bytes = models.BigIntegerField(null=True, blank=True)
    result_bytes = models.BigIntegerField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["task_path", "id"], name="dayfly_run_task"),
        ]
        constraints = [
            # Also what makes writing an outcome twice harmless.
            models.UniqueConstraint(fields=["job", "epoch"], name="dayfly_run_once"),
        ]

    def __str__(self) -> str:
        return f"{self.task_path} {self.job_id} attempt {self.attempt}: {self.outcome}"
