"""What a person types about endpoints, and sees."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clewline.cli import main
from clewline.project import Project

Shop = Callable[..., Project]
Type = Callable[..., tuple[int, str]]

NODES = """
import polars as pl

def tidy(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(hours=pl.col("hours").clip(0, 80))
"""
GRAPH = """endpoint: income
graph:
  transform: nodes.py:tidy
  route: {kind: weights, weights: {champion: 0.9, challenger: 0.1}}
  arms:
    champion: income@champion
    challenger: income@challenger
timeout_ms: 50
"""


@pytest.fixture
def project(tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the file of a graph, in which commands are typed."""
    files = {"nodes.py": NODES, "endpoints/income.yaml": GRAPH}
    made = shop(tmp_path, {**files, "endpoints/price.yaml": "endpoint: price\nmodel: price@1\n"})
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def typed(project: Project, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type a command: its status, and all that it said."""

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main.status(list(words))
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def data(said: str) -> Any:
    return json.loads(said)


def test_check_says_what_apply_would_do_and_does_nothing(typed: Type) -> None:
    status, said = typed("endpoints", "check", "income")
    assert status == 0
    for line in (
        "income: apply would create income#1; nothing is live yet",
        "+ node route: route weights: champion 0.9, challenger 0.1",
        "+ node champion: income@1",
        "+ timeout_ms: 50",
        "20 background rows answered",
    ):
        assert line in said
    status, said = typed("endpoints", "list")
    assert "not applied" in said
    assert "income#1" not in said


def test_apply_shows_what_changed_and_makes_nothing_when_nothing_did(
    project: Project, typed: Type
) -> None:
    status, said = typed("endpoints", "apply")
    assert status == 0
    assert "income#1 is live: income@1, income@2" in said
    assert "price#1 is live: price@1" in said
    assert "was live already" in typed("endpoints", "apply", "income")[1]
    changed = GRAPH.replace("0.9", "0.5").replace("0.1}", "0.5}").replace("_ms: 50", "_ms: 80")
    (project.endpoints / "income.yaml").write_text(changed)
    (project.root / "nodes.py").write_text(NODES.replace("80", "70"))
    status, said = typed("endpoints", "apply", "income")
    assert "income#2 is live" in said
    assert "~ node route: route weights: champion 0.9, challenger 0.1" in said
    assert "→ route weights: champion 0.5, challenger 0.5" in said
    assert "~ code nodes.py: " in said
    assert "~ timeout_ms: 50" in said
    assert "node champion" not in said
    status, said = typed("endpoints", "rollback", "income")
    assert status == 0
    assert "income#1 is live" in said
    assert "~ timeout_ms: 80" in said


def test_a_rollback_says_that_the_file_would_undo_it(project: Project, typed: Type) -> None:
    assert typed("endpoints", "apply", "income")[0] == 0
    (project.endpoints / "income.yaml").write_text(
        GRAPH.replace("0.9", "0.8").replace("0.1", "0.2")
    )
    assert typed("endpoints", "apply", "income")[0] == 0
    status, said = typed("endpoints", "rollback", "income")
    assert status == 0
    assert "income#1 is live" in said
    assert "the next `clewline endpoints apply income` would make income#2 or newer live" in said


def test_show_draws_the_graph_with_pinned_versions(typed: Type) -> None:
    typed("endpoints", "apply")
    status, said = typed("endpoints", "show", "income")
    assert status == 0
    lines = [line.rstrip() for line in said.splitlines()]
    assert "transform nodes.py:tidy (polars)" in lines
    assert "└── route weights: champion 0.9, challenger 0.1" in lines
    assert "    ├── champion  income@1" in lines
    assert "    └── challenger  income@2" in lines
    assert "timeout 50 ms" in said
    found = data(typed("--json", "endpoints", "show", "income")[1])
    assert found["live"]["graph"]["then"]["arms"]["champion"]["model"] == "income@1"


def test_list_has_headers_and_says_what_is_live(project: Project, typed: Type) -> None:
    typed("endpoints", "apply", "price")
    (project.endpoints / "price.yaml").rename(project.endpoints / "aside.txt")
    said = typed("endpoints", "list")[1]
    header, income, price = said.splitlines()[:3]
    assert header.split() == ["endpoint", "revision", "state", "models", "live", "since"]
    assert "not applied" in income
    assert "price#1" in price
    assert "live, its file is gone" in price
    found = data(typed("--json", "endpoints", "list")[1])
    assert [(each["endpoint"], each["revision"]) for each in found] == [
        ("income", None),
        ("price", "price#1"),
    ]


def test_a_file_with_problems_is_named_in_full_and_nothing_is_applied(
    project: Project, typed: Type
) -> None:
    wrong = GRAPH.replace("champion: income@champion", "champion: income@champio")
    (project.endpoints / "income.yaml").write_text(wrong.replace("nodes.py:tidy", "nodes.py:tidi"))
    status, said = typed("endpoints", "check", "income")
    assert status == 1
    assert "There is no alias income@champio" in said
    assert "Did you mean 'tidy'?" in said
    status, said = typed("--json", "endpoints", "check", "income")
    assert status == 1
    assert [problem["at"] for problem in data(said)["problems"]] == [
        "graph.transform",
        "graph.arms.champion",
    ]
    status, said = typed("endpoints", "apply")
    assert status == 2
    assert "1 file of 2 cannot be applied, so none was" in said
    assert "price#1" not in typed("endpoints", "list")[1]
    status, said = typed("endpoints", "check", "nope")
    assert status == 2
    assert "There is no file" in said
    assert "Did you mean 'price'?" in typed("endpoints", "check", "endpoints/price.yaml")[1]


def test_why_impact_and_doctor_follow_all_models_and_the_code(typed: Type) -> None:
    typed("endpoints", "apply")
    said = typed("why", "income")[1]
    for line in ("code nodes.py:tidy", "model income@1", "model income@2", "transform, route"):
        assert line in said
    code = data(typed("--json", "endpoints", "show", "income")[1])["live"]["code"]
    assert "revision income#1" in typed("impact", code[:12])[1]
    assert "revision income#1" in typed("impact", "income@2")[1]
    said = typed("doctor")[1]
    assert "missing" not in said
    assert "orphan" not in said


def test_doctor_misses_the_code_of_a_revision(project: Project, typed: Type) -> None:
    typed("endpoints", "apply")
    for pack in (project.store_root / "blobs" / "packs").glob("*.pack"):
        pack.write_bytes(b"")
    status, said = typed("doctor")
    assert status == 1
    assert "code snapshot of revision income#1" in said


def test_doctor_seals_the_records_of_an_older_store_once_a_person_asks(
    project: Project, typed: Type
) -> None:
    typed("endpoints", "apply")
    with closing(sqlite3.connect(project.store_root / "catalog.db")) as connection:
        connection.execute("DELETE FROM chain_entry")
        connection.commit()
    status, said = typed("doctor")
    assert status == 1
    assert "unsealed record  The revision income#1 has no link in the signed chain" in said
    assert "clewline doctor --seal" in said
    status, said = typed("models", "verify")
    assert status == 1
    assert "The alias income@champion has no link" in said
    status, said = typed("doctor", "--seal")
    assert (status, "sealed the revision income#1" in said, "All is well." in said) == (
        0,
        True,
        True,
    )
    assert typed("models", "verify")[0] == 0


def test_a_machine_without_the_key_is_told_what_it_cannot_do(project: Project, typed: Type) -> None:
    project.private_key.unlink()
    status, said = typed("doctor")
    assert status == 0
    assert "no key  There is no private key at" in said
    status, said = typed("endpoints", "apply")
    assert status == 2
    assert "nothing can be sealed" in said
    status, said = typed("predictions", "compact")
    assert status == 0
    assert said.startswith(f"No closed segment of {project.log} is left to compact. A segment ")
