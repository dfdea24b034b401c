"""Long work goes on when its page is left, is found again, and says how it ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from clewline.console.app import Console
from clewline.console.jobs import (
    AT_ONCE,
    LINES,
    WAITING,
    Job,
    JobProgress,
    JobResult,
    Jobs,
    command_work,
)
from clewline.errors import NotFound, Overloaded, UsageError
from clewline.scaffold import create
from clewline.store.records import Run
from tests.support import wait_for

ANNA = "anna"


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    console = Console(create(tmp_path / "p"))
    yield console
    console.close()


def ended(job: Job) -> Job:
    wait_for(lambda: job.is_over)
    return job


def test_a_job_goes_on_alone_and_its_page_shows_progress_and_then_the_result(
    console: Console,
) -> None:
    go_on = threading.Event()

    def work(progress: JobProgress) -> JobResult:
        progress.line("half <b>way</b>")
        progress.fraction(0.5)
        go_on.wait()
        return JobResult("All rows are equal.", "/runs/abc")

    with TestClient(console.app) as client:
        job = console.jobs.start("Replay", work, person=ANNA)
        wait_for(lambda: job.fraction)
        page = client.get(job.address).text
        assert "half &lt;b&gt;way&lt;/b&gt;" in page
        assert 'value="0.500"' in page
        assert 'hx-trigger="every 1s"' in page
        go_on.set()
        ended(job)
        page = client.get(job.address).text
        assert "All rows are equal." in page
        assert 'href="/runs/abc"' in page
        assert "hx-trigger" not in page
        assert job.address in client.get("/jobs").text


def test_a_job_that_fails_says_what_the_command_line_says(console: Console) -> None:
    def work(_: JobProgress) -> JobResult:
        raise UsageError("There is no pipeline 'x'.", "Write `clewline run tumours`.")

    job = ended(console.jobs.start("Run x", work, person=ANNA))
    with TestClient(console.app) as client:
        page = client.get(job.address).text
    assert job.status == "failed"
    assert "There is no pipeline" in page
    assert "Write `clewline run tumours`." in page


def test_two_clicks_start_one_job() -> None:
    jobs, go_on = Jobs(), threading.Event()

    def work(_: JobProgress) -> JobResult:
        go_on.wait()
        return JobResult("done")

    first = jobs.start("Explain", work, person=ANNA, key="explain 1")
    assert jobs.start("Explain", work, person=ANNA, key="explain 1") is first
    assert jobs.start("Explain", work, person=ANNA, key="explain 2") is not first
    go_on.set()
    ended(first)
    assert jobs.start("Explain", work, person=ANNA, key="explain 1") is not first


def test_only_some_jobs_work_at_once_and_too_many_are_refused() -> None:
    jobs, go_on = Jobs(), threading.Event()

    def work(_: JobProgress) -> JobResult:
        go_on.wait()
        return JobResult("done")

    started = [jobs.start("Wait", work, person=ANNA) for _ in range(WAITING)]
    wait_for(lambda: sum(job.status == "working" for job in started) == AT_ONCE)
    with pytest.raises(Overloaded, match=f"{WAITING} jobs wait"):
        jobs.start("Wait", work, person=ANNA)
    assert sum(job.status == "working" for job in started) == AT_ONCE
    go_on.set()
    assert all(ended(job).status == "done" for job in started)


def test_a_job_keeps_its_last_lines_and_counts_all() -> None:
    def work(progress: JobProgress) -> JobResult:
        for number in range(LINES + 10):
            progress.line(f"line {number}")
        return JobResult("done")

    job = ended(Jobs().start("Print", work, person=ANNA))
    assert (job.line_count, len(job.lines), job.lines[0]) == (LINES + 10, LINES, "line 10")


def test_a_command_runs_in_its_own_process_and_its_error_is_the_jobs(console: Console) -> None:
    listed = command_work(
        console.project, ["models", "list"], lambda printed: JobResult(printed.decode().strip())
    )
    job = ended(console.jobs.start("List models", listed, person=ANNA))
    assert job.result == JobResult("[]")
    missing = command_work(
        console.project, ["run", "nothing-like-this"], lambda _: JobResult("never")
    )
    job = ended(console.jobs.start("Run", missing, person=ANNA))
    assert job.error is not None
    assert job.error.code != "fault"
    assert "nothing-like-this" in job.error.message


def test_closing_ends_the_process_of_a_job(console: Console) -> None:
    (console.project.root / "pipelines.py").write_text(
        "import time\nfrom pathlib import Path\n\nimport clewline as cl\n\n\n"
        "@cl.step\ndef wait() -> int:\n    Path('waits').touch()\n    time.sleep(600)\n"
        "    return 1\n\n\n@cl.pipeline\ndef waiting():\n    wait()\n"
    )
    work = command_work(console.project, ["run", "waiting"], lambda _: JobResult("never"))
    job = console.jobs.start("Run", work, person=ANNA)
    wait_for((console.project.root / "waits").exists)
    console.jobs.close()
    assert ended(job).status == "failed"
    assert console.store.catalog.find(Run)[0].status == "interrupted"


def test_a_job_of_an_earlier_console_is_explained(console: Console) -> None:
    with pytest.raises(NotFound, match="There is no job"):
        console.jobs.get("0123")
    with TestClient(console.app) as client:
        answer = client.get("/jobs/0123")
    assert answer.status_code == 404
    assert "forgotten when the console starts anew" in answer.text
