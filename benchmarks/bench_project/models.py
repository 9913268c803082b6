"""The row of the plain design, with the columns it needs and an index for its query."""

from __future__ import annotations

from django.db import models


class PlainJob(models.Model):
    """One call of a function, waiting or done."""

    task_name = models.CharField(max_length=200)
    task_params = models.JSONField(default=dict)
    status = models.CharField(max_length=16, default="QUEUED")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)

    class Meta:
        app_label = "bench_project"
        indexes = (models.Index(fields=["status", "created_at"], name="plain_job_queued"),)

    def __str__(self) -> str:
        return f"{self.task_name} {self.pk}: {self.status}"
