"""`clewline why` and `clewline impact`, as they are called."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from support import wait_for

from clewline.cli.main import status
from clewline.cli.why import lineage_tree
from clewline.store.lineage import LineageNode
from clewline.store.records import Run

RUN = "4f9a2c81d0be"


def test_why_prints_the_line_as_a_tree(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["why", "4f9a"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"run {RUN}  income",
        "  params  trees=100",
        "  done    1970-01-01 00:00 UTC, 1 step",
        "├── code without a Git commit",
        "└── data data",
        "      digest  111111111111, 2 B",
    ]


def test_a_long_fact_goes_on_beneath_where_it_began() -> None:
    def node(name: str, **params: int) -> LineageNode:
        run = Run(id=name, pipeline="p", status="done", params=params, started=0.0)
        return LineageNode(kind="run", ref=name, record=run, facts={"steps": 1, "cached_steps": 0})

    parent = node("m")
    parent.children = [node("r", alpha=1, beta=2, gamma=3, delta=4)]
    out = Console(width=44, file=io.StringIO())
    with out.capture() as printed:
        out.print(lineage_tree(parent, 44))
    assert [line.rstrip() for line in printed.get().splitlines()] == [
        "run m  p",
        "  params  none",
        "  done    1970-01-01 00:00 UTC, 1 step",
        "└── run r  p",
        "      params  alpha=1, beta=2, gamma=3,",
        "              delta=4",
        "      done    1970-01-01 00:00 UTC, 1 step",
    ]


def test_a_reader_that_goes_away_is_no_failure(recorded: Path) -> None:
    command = f"{sys.executable} -m clewline.cli.main why {RUN}"
    piped = f"(sleep 0.2; {command}; echo $? >status) 2>err | true"
    subprocess.run(["bash", "-c", piped], cwd=recorded, check=True)
    wait_for(lambda: (recorded / "status").exists() and (recorded / "status").read_text())
    assert (recorded / "status").read_text() == "0\n"
    assert (recorded / "err").read_text() == ""


def test_impact_of_a_path_leads_to_its_runs(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["impact", "data"]) == 0
    assert f"└── run {RUN}  income" in capsys.readouterr().out


def test_a_file_in_a_folder_that_was_read_leads_to_the_folder(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recorded / "data").mkdir()
    (recorded / "data" / "rows.csv").write_text("1")
    assert status(["why", "data/rows.csv"]) == 0
    assert "data as the newest run read it" in capsys.readouterr().out


def test_json_gives_the_same_tree_as_data(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["--json", "why", RUN]) == 0
    node = msgspec.json.decode(capsys.readouterr().out)
    assert (node["kind"], node["ref"]) == ("run", RUN)
    assert [child["kind"] for child in node["children"]] == ["code", "data"]


def test_what_is_not_there_is_a_wrong_call(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["why", "4f9b2c81d0be"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Did you mean {RUN!r}" in err


def test_outside_a_project_every_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["why", RUN], ["impact", RUN], ["doctor"]):
        assert status(command) == 2
        assert "clewline init" in capsys.readouterr().err


def test_why_loads_nothing_that_loads_slowly(recorded: Path) -> None:
    script = (
        "import sys; from clewline.cli.main import status; assert status(['why', '4f9a']) == 0; "
        "slow = {'sqlalchemy', 'alembic', 'numpy', 'polars', 'sklearn', 'onnxruntime'}; "
        "sys.exit(', '.join(slow & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
