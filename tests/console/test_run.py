"""The pages of one run, of its steps and of what they gave, over runs that really ran."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from clewline.console.app import Console, LoopbackAccess
from clewline.console.jobs import Jobs
from clewline.console.page import EventStream, PageRequest, Person
from clewline.console.pages.run import follow_log
from clewline.console.server_connection import ServerConnection
from clewline.flow.run_launcher import start_run
from clewline.flow.runs import find_run
from clewline.project import Project
from clewline.scaffold import create
from clewline.store.records import Run
from clewline.store.store import Store

PIPELINES = """
import time
from pathlib import Path

import polars as pl

import clewline as cl


@cl.step
def read(data: Path) -> pl.DataFrame:
    return pl.read_csv(data)


@cl.step
def judge(table: pl.DataFrame, rate: float, wait_for: str) -> dict[str, float]:
    print("judging <b>all</b>", flush=True)
    while wait_for and not Path(wait_for).exists():
        time.sleep(0.02)
    if rate > 1:
        raise ValueError("the <b>rate</b> is too high")
    cl.log_metric("score", rate * len(table))
    return {"score": rate * len(table)}


@cl.pipeline
def toy(data: Path = Path("x.csv"), rate: float = 0.5, wait_for: str = ""):
    judge(read(data), rate, wait_for)
"""


@dataclass
class Toy:
    """A project with runs of one pipeline, and its console."""

    project: Project
    store: Store
    client: TestClient
    jobs: Jobs

    def run(self, **params: str) -> Run:
        return self.ended(start_run(self.project, self.store, "toy", params))

    def ended(self, run_id: str) -> Run:
        deadline = time.monotonic() + 120
        while (run := find_run(self.store, run_id)).status == "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return run

    def text(self, address: str) -> str:
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    project = create(tmp_path_factory.mktemp("runs") / "p")
    (project.root / "pipelines.py").write_text(PIPELINES)
    rows = "".join(f"{number},name {number}\n" for number in range(120))
    (project.root / "x.csv").write_text("x,name\n" + rows)
    console = Console(project)
    with TestClient(console.app) as client:
        yield Toy(project, console.store, client, console.jobs)
    console.close()


def test_a_run_shows_its_steps_and_the_error_of_the_one_that_failed(toy: Toy) -> None:
    run = toy.run(rate="2")
    text = toy.text(f"/runs/{run.id}")
    assert run.status == "failed"
    assert f'href="/runs/{run.id}/steps/00-read"' in text
    assert "2 steps" in text
    assert "the &lt;b&gt;rate&lt;/b&gt; is too high" in text
    step = toy.text(f"/runs/{run.id}/steps/01-judge")
    assert "judging &lt;b&gt;all&lt;/b&gt;" in step
    assert toy.client.get(f"/runs/{run.id}/steps/09-none").status_code == 404


def test_a_run_is_run_again_with_other_parameters(toy: Toy) -> None:
    first = toy.run(rate="0.25")
    form = {"param.rate": "0.75"}
    answer = toy.client.post(f"/runs/{first.id}/again", data=form, follow_redirects=False)
    assert answer.status_code == 303
    second = toy.ended(answer.headers["location"].removeprefix("/runs/"))
    assert second.params == {**first.params, "rate": 0.75}
    assert second.metrics == {"score": 90.0}
    compared = toy.text(f"/runs/compare?run={first.id}&run={second.id}")
    assert "Both ran the same code." in compared


def test_only_an_operator_runs_it_again(toy: Toy) -> None:
    run = toy.run(rate="0.25")

    class ViewerAccess(LoopbackAccess):
        def person(self, request: object) -> Person:
            return Person("ana", "view")

    console = Console(toy.project, access=ViewerAccess())
    with TestClient(console.app) as client:
        answer = client.post(f"/runs/{run.id}/again", data={"seed": "1"})
        assert "Run again</button>" not in client.get(f"/runs/{run.id}").text
    console.close()
    assert answer.status_code == 403
    assert "operate" in answer.text


def test_parameters_that_do_not_fit_are_refused_in_words(toy: Toy) -> None:
    run = toy.run(rate="0.25")
    answer = toy.client.post(f"/runs/{run.id}/again", data={"param.rate": "<b>much"})
    assert answer.status_code >= 400
    assert "is not of type float" in answer.text
    assert "<b>much" not in answer.text


def test_an_artifact_is_shown_by_its_kind_and_by_page(toy: Toy) -> None:
    run = toy.run(rate="0.25")
    (table,) = re.findall(r"/artifacts/[0-9a-f]{64}", toy.text(f"/runs/{run.id}/steps/00-read"))[
        -1:
    ]
    assert "1–50 of 120" in toy.text(table)
    last = toy.text(f"{table}?rows-after=100")
    assert "name 119" in last
    assert "name 99<" not in last
    lines = toy.text(f"{table}?export=csv&table=rows").splitlines()
    assert (lines[0], len(lines)) == ("row,x,name", 121)
    links = re.findall(r"/artifacts/[0-9a-f]{64}", toy.text(f"/runs/{run.id}/steps/01-judge"))
    assert re.search(r"(&#34;|&quot;)score\1: 30.0", toy.text(links[-1]))
    assert toy.client.get("/artifacts/" + "0" * 64).status_code == 404


def test_the_log_of_a_running_step_is_followed_to_its_end(toy: Toy) -> None:
    gate = toy.project.root / "gate"
    run_id = start_run(toy.project, toy.store, "toy", {"rate": "0.125", "wait_for": str(gate)})
    place = f"/runs/{run_id}/steps/01-judge"
    deadline = time.monotonic() + 120
    while 'data-log="' not in (text := toy.client.get(place).text) or "judging" not in text:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    async def follow() -> list[tuple[str, str]]:
        answer = follow_log(request_for(toy, run_id))
        assert isinstance(answer, EventStream)
        found = []
        async for event in answer.events:
            found.append((event.name, event.data))
            gate.touch()
        return found

    events = asyncio.run(follow())
    assert json.loads(events[0][1]) == "judging <b>all</b>\n"
    assert events[-1] == ("end", "done")
    assert toy.ended(run_id).metrics == {"score": 15.0}


def request_for(toy: Toy, run_id: str) -> PageRequest:
    return PageRequest(
        project=toy.project,
        store=toy.store,
        person=Person("local", "operate"),
        server=ServerConnection(),
        path={"run": run_id, "step": "01-judge"},
        query={},
        form={},
        jobs=toy.jobs,
    )


def test_two_runs_of_different_code_show_the_lines_that_differ(toy: Toy) -> None:
    first = toy.run(rate="0.25")
    source = toy.project.root / "pipelines.py"
    source.write_text(PIPELINES.replace("rate * len(table))", "2 * rate * len(table))"))
    second = toy.run(rate="0.25")
    source.write_text(PIPELINES)
    text = toy.text(f"/runs/compare?run={first.id}&run={second.id}")
    assert re.search(r'class="added">\+.*2 \* rate \* len\(table\)', text)
    assert re.search(r'class="removed">-.*, rate \* len\(table\)', text)
