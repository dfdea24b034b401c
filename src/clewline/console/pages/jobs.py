"""Long work that was started from a page: how far it is, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clewline.console.jobs import Job
from clewline.console.page import PageAnswer, PageRequest, PageRoute, View
from clewline.console.table import Column, Table, TableRows, offset_source


class JobsPage:
    """Long work that was started from a page."""

    name = "jobs"
    title = "Jobs"
    place = None

    def routes(self) -> Sequence[PageRoute]:
        """Return the list, and the page of one job."""
        return (PageRoute("/jobs", list_jobs), PageRoute("/jobs/{job}", show_job))


def list_jobs(request: PageRequest) -> PageAnswer:
    """List the jobs of this console, the newest first."""
    jobs = request.jobs.all()

    def rows(offset: int, limit: int, _: str) -> Sequence[Mapping[str, Any]]:
        return [_row(job) for job in jobs[offset : offset + limit]]

    source = offset_source(rows)

    def page(cursor: str | None, limit: int, sort: str) -> TableRows:
        found = source(cursor, limit, sort)
        return TableRows(found.rows, found.next_cursor, len(jobs))

    table = Table(
        "jobs",
        [
            Column("title", "Job", link=lambda row: f"/jobs/{row['id']}"),
            Column("status", "Status"),
            Column("person", "Started by"),
            Column("created", "Started", "time"),
            Column("seconds", "Took", "duration"),
        ],
        page,
        request,
        empty="Nothing long was started since the console began.",
        caption="Jobs",
    )
    return View("jobs.html", title="Jobs", values={"table": table})


def show_job(request: PageRequest) -> PageAnswer:
    """Show one job; while it works, the page asks again each second."""
    job = request.jobs.get(request.path["job"])
    return View("jobs_one.html", title=job.title[:200], values={"job": job})


def _row(job: Job) -> dict[str, Any]:
    seconds = None if job.ended is None else job.ended - job.created
    return {
        "id": job.id,
        "title": job.title,
        "status": job.status,
        "person": job.person,
        "created": job.created,
        "seconds": seconds,
    }
