"""What needs a person is found, once, and what is well is not; changes come newest first."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Shop
from explained import answer_rows

from clewline.project import Project
from clewline.serve import overview, revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.metrics.live_metrics import EndpointCounts, ServerCounts
from clewline.serve.overview import FlaggedShare, find_attention, flagged_shares, recent_changes
from clewline.store.records import Run
from clewline.store.store import Store

NOW = 1_800_000_000.0
DAY = 86_400.0


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def counts(**values: Any) -> ServerCounts:
    return ServerCounts(**{"time": NOW, "workers": 2, "workers_ready": 2, **values})


def run(identifier: str, status: Any, started: float, pipeline: str = "train") -> Run:
    return Run(id=identifier, pipeline=pipeline, status=status, started=started, process="gone:1:1")


def record(store: Store, run: Run) -> None:
    with store.catalog.transaction() as transaction:
        transaction.record(run)


@pytest.fixture
def project(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 30, 50 << 30, 50 << 30))
    made = shop(tmp_path, {"endpoints/income.yaml": "endpoint: income\nmodel: income@1\n"})
    with Store.open(made.store_root) as store:
        parsed = read_endpoint(made, "income")
        revision.apply(made, store, parsed)
    return made


@pytest.fixture
def store(project: Project) -> Iterator[Store]:
    with Store.open(project.store_root) as store:
        yield store


def codes(project: Project, store: Store, found: ServerCounts | None = None) -> list[str]:
    return [each.code for each in find_attention(project, store, found or counts(), NOW)]


def test_a_project_that_is_well_needs_nobody(project: Project, store: Store) -> None:
    well = counts(endpoints={"income": EndpointCounts(is_ready=True)}, certificate_ends=NOW + 1e8)
    assert codes(project, store, well) == []


def test_a_revision_that_does_not_answer_is_named(project: Project, store: Store) -> None:
    found = counts(endpoints={"income": EndpointCounts(is_ready=False)})
    assert [each.values for each in find_attention(project, store, found, NOW)] == [
        {"revision": "income#1"}
    ]
    unknown = counts(endpoints={"(others)": EndpointCounts(is_ready=False)})
    assert codes(project, store, unknown) == []


def test_workers_the_certificate_and_the_disk_are_watched(
    project: Project, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert codes(project, store, counts(workers_ready=1)) == ["missing_workers"]
    assert codes(project, store, counts(certificate_ends=NOW + 20 * DAY)) == ["ending_certificate"]
    assert codes(project, store, counts(certificate_ends=NOW + 22 * DAY)) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 30, 96 << 30, 4 << 30))
    assert codes(project, store) == ["full_disk"]


def test_a_key_that_others_can_read_is_a_finding(project: Project, store: Store) -> None:
    project.private_key.chmod(0o644)
    (found,) = find_attention(project, store, counts(), NOW)
    assert found.values["title"] == "exposed key"
    assert "chmod 600" in found.values["fix"]
    project.private_key.unlink()  # a machine that only serves needs none
    assert codes(project, store) == []


def test_only_the_newest_run_of_a_pipeline_counts(project: Project, store: Store) -> None:
    record(store, run("a" * 12, "failed", NOW - 3 * DAY))
    assert codes(project, store) == ["failed_run"]
    record(store, run("b" * 12, "done", NOW - 2 * DAY))
    assert codes(project, store) == []
    record(store, run("c" * 12, "failed", NOW - 15 * DAY, "older"))
    assert codes(project, store) == []


def test_changes_come_newest_first_and_an_applied_revision_once(
    project: Project, store: Store
) -> None:
    record(store, run("d" * 12, "done", NOW))
    found = recent_changes(store, 100)
    assert [each.time for each in found] == sorted((each.time for each in found), reverse=True)
    assert (found[0].what, found[0].ref) == ("ran", "d" * 12)
    assert [each.what for each in found if each.ref == "income#1"] == ["applied"]
    assert {"registered", "promoted"} <= {each.what for each in found}
    assert len(recent_changes(store, 2)) == 2


def test_the_flagged_are_counted_among_the_newest(project: Project) -> None:
    assert flagged_shares(project.log) == {}
    answer_rows(project, "income", [{"age": 30, "hours": 40.0}, {"age": 99, "hours": 40.0}])
    assert flagged_shares(project.log) == {"income": FlaggedShare(1, 2)}
    assert overview.flagged_shares(project.log, 1)["income"].rows == 1
