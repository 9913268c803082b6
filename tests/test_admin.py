from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from dayfly import queue
from dayfly.admin import as_json, human_bytes, human_seconds, preformatted
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

    names = ("field-task", "field-started", "field-outcome", "field-sentence")
    cells = [text.index(word) for word in names]
    assert cells == sorted(cells)
    assert cells[-1] < text.index("250.0 ms") < text.index("64.1 MB")
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
    assert "64.1 MB" in text
    assert "250.0 ms" in text
    assert "<pre" in text


def test_page_of_a_job_shows_its_last_runs_without_their_texts(admin_client, rows):
    made = rows()
    template = made["run"]
    for epoch in range(10, 60):
        template.pk, template.epoch, template.message = uuid7(), epoch, f"run-{epoch}"
        template.save(force_insert=True)

    with CaptureQueriesContext(connection) as queries:
        text = admin_client.get(page("job", made["job"])).content.decode()

    shown = [epoch for epoch in range(10, 60) if f"run-{epoch}<" in text]
    assert shown == list(range(40, 60))
    assert text.index("run-59<") < text.index("run-40<")
    assert "Traceback &lt;script&gt;" not in text
    asked = [each["sql"] for each in queries if "dayfly_run" in each["sql"]]
    assert len(asked) <= 2


@pytest.mark.parametrize("database", ["nowhere", "empty"])
def test_list_of_jobs_does_without_a_backend_that_cannot_be_asked(
    admin_client, job, settings, database, monkeypatch
):
    job(queue_name="mail")
    other = {"BACKEND": "dayfly.backend.DatabaseBackend", "OPTIONS": {"DATABASE": database}}
    settings.TASKS = {**settings.TASKS, "other": other}
    if database == "empty":
        monkeypatch.setitem(settings.TASKS["other"], "OPTIONS", {})

        def refuse(connection, alias, **how):
            if alias == "other":
                with connection.cursor() as cursor:
                    cursor.execute("SELECT * FROM no_such_table")
            return ["mail"]

        monkeypatch.setattr("dayfly.adminrows.ready_queues", refuse)

    response = admin_client.get(listing("job"))

    assert response.status_code == 200
    assert 'queue_name=mail"' in response.content.decode()


def test_queue_whose_name_postgresql_does_not_take_has_no_jobs(admin_client, rows):
    rows()

    response = admin_client.get(listing("job"), {"queue_name": "\0"})

    assert response.status_code == 200
    assert list(response.context["cl"].result_list) == []


def test_run_is_found_by_the_id_that_the_log_has(admin_client, rows):
    made = rows()

    response = admin_client.get(listing("run"), {"q": str(made["job"].id)})

    assert list(response.context["cl"].result_list) == [made["run"]]


@pytest.mark.parametrize("state", ["works", "silent", "stopped", "lost"])
def test_workers_are_listed_by_their_state(admin_client, worker, state):
    changes = {
        "works": {},
        "silent": {"lease_expires_at": "2000-01-01 00:00:00+00:00"},
        "stopped": {"stopped_at": "2000-01-01 00:00:00+00:00"},
        "lost": {"lost_at": "2000-01-01 00:00:00+00:00"},
    }
    for name, fields in changes.items():
        me = worker(name)
        type(me).objects.filter(pk=me.pk).update(name=name, **fields)

    response = admin_client.get(listing("worker"), {"state": state})

    assert [row.name for row in response.context["cl"].result_list] == [state]


def test_arguments_can_be_read(admin_client, job):
    text = '{"args": ["J\\u00fcrgen <b>"], "kwargs": {}}'
    job(arguments=text)

    shown = admin_client.get(page("job", Job.objects.get())).content.decode()

    assert "&quot;Jürgen &lt;b&gt;&quot;" in shown


@pytest.mark.parametrize("text", ["not json", "[" * 50_000, '"\\ud800"', "1" * 200_000])
def test_text_that_is_no_json_is_shown_as_it_is(text):
    shown = as_json(text)

    assert len(shown) < 101_000
    assert text[:5] in shown or "ud800" in shown


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
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (100_000, "0.1 MB"),
        (-5_000_000, "-5.0 MB"),
        (3_000_000_000, "3,000.0 MB"),
    ],
)
def test_sizes_have_units(value, shown):
    assert human_bytes(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0.0021, "2.1 ms"), (75, "75.00 s"), (7_384.2, "2:03:04")]
)
def test_durations_have_units(value, shown):
    assert human_seconds(value) == shown


def test_very_long_text_is_cut():
    shown = preformatted("a" * 200_000 + "end")

    assert len(shown) < 101_000
    assert shown.endswith("end</pre>")


def test_unknown_job_has_no_page(admin_client, db):
    assert not Job.objects.filter(pk=uuid7()).exists()
    assert admin_client.get(page("job", Job(id=uuid7()))).status_code == 302
