"""`clewline runs list` finds runs by their parameters and metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clewline.cli import main
from clewline.project import Project
from clewline.scaffold import create
from clewline.store.records import Run
from clewline.store.store import Store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = create(tmp_path / "p")
    with Store.open(made.store_root) as store:
        for number, (auc, trees) in enumerate([(0.7, 10), (0.9, 100), (0.8, 100)]):
            store.record(
                Run(
                    id=f"{number:012x}",
                    pipeline="income",
                    status="done",
                    params={"trees": trees},
                    metrics={"auc": auc},
                    started=1_790_000_000.0 + number,
                )
            )
    monkeypatch.chdir(made.root)
    return made


@pytest.mark.parametrize(
    ("options", "aucs"),
    [
        (["--sort", "-auc"], [0.9, 0.8, 0.7]),
        (["--metric", "auc > 0.75", "--param", "trees = 100"], [0.8, 0.9]),
        (["--metric", "auc > 0.75", "--metric", "auc < 0.85"], [0.8]),
        (["--status", "failed"], []),
        (["--until", "2020-01-01"], []),
    ],
)
def test_runs_are_found_and_sorted(
    project: Project, capfd: pytest.CaptureFixture[str], options: list[str], aucs: list[float]
) -> None:
    assert main.status(["runs", "list", *options, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [run["metrics"]["auc"] for run in found] == aucs
