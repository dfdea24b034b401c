"""`clewline why`, `clewline impact` and `clewline doctor`, as they are called."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from clewline.cli.main import status
from clewline.cli.why import tree
from clewline.model.seal import make_keys
from clewline.store.nodes import Node
from clewline.store.records import Artifact, Edge, Run, SeenFile, StepRun
from clewline.store.store import Store

RUN = "4f9a2c81d0be"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which a run has read the folder `data`."""
    monkeypatch.chdir(tmp_path)
    with Store.create(tmp_path / ".clewline") as store:
        public = make_keys(tmp_path / ".clewline" / "keys" / "seal.key")
        (tmp_path / "clewline.toml").write_text(
            f'[project]\nname = "income"\nid = "p-1"\n[keys]\npublic = "{public}"\n'
        )
        data = Artifact(
            digest="1" * 64,
            kind="tree",
            format="bytes",
            blob=store.blobs.put(b"{}"),
            size_bytes=2,
            created=time.time(),
        )
        store.record(
            data,
            Run(id=RUN, pipeline="income", status="done", params={"trees": 100}, started=1.0),
            StepRun(id=f"{RUN}/00-load", run=RUN, index=0, name="load", status="done", started=1.0),
            SeenFile(path=str(tmp_path / "data"), digest=data.digest, run=RUN),
            Edge(source=f"input:{data.digest}", target=f"step:{RUN}/00-load", role="input:data"),
        )
    return tmp_path


def test_why_prints_the_line_as_a_tree(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    run = Node(
        ref="", kind="run", title="r", facts=[("params", "alpha=1, beta=2, gamma=3, delta=4")]
    )
    model = Node(ref="", kind="model", title="m", children=[run])
    out = Console(width=44, file=io.StringIO())
    with out.capture() as printed:
        out.print(tree(model, 44))
    assert [line.rstrip() for line in printed.get().splitlines()] == [
        "model m",
        "└── run r",
        "      params  alpha=1, beta=2, gamma=3,",
        "              delta=4",
    ]


def test_a_reader_that_goes_away_is_no_failure(project: Path) -> None:
    command = f"{sys.executable} -m clewline.cli.main why {RUN}"
    piped = f"(sleep 0.2; {command}; echo $? >status) 2>err | true"
    subprocess.run(["bash", "-c", piped], cwd=project, check=True)
    for _ in range(100):
        if (project / "status").exists() and (project / "status").read_text():
            break
        time.sleep(0.1)
    assert (project / "status").read_text() == "0\n"
    assert (project / "err").read_text() == ""


def test_impact_of_a_path_leads_to_its_runs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["impact", "data"]) == 0
    assert f"└── run {RUN}  income" in capsys.readouterr().out


def test_a_file_in_a_folder_that_was_read_leads_to_the_folder(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "data").mkdir()
    (project / "data" / "rows.csv").write_text("1")
    assert status(["why", "data/rows.csv"]) == 0
    assert "data as the newest run read it" in capsys.readouterr().out


def test_json_gives_the_same_tree_as_data(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["--json", "why", RUN]) == 0
    node = msgspec.json.decode(capsys.readouterr().out)
    assert (node["kind"], node["ref"]) == ("run", RUN)
    assert [child["kind"] for child in node["children"]] == ["code", "data"]


def test_what_is_not_there_is_a_wrong_call(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["why", "4f9b2c81d0be"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Nearest: {RUN}" in err


def test_outside_a_project_every_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["why", RUN], ["impact", RUN], ["doctor"]):
        assert status(command) == 2
        assert "clewline init" in capsys.readouterr().err


def test_doctor_of_a_sound_project_says_so(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["doctor"]) == 0
    assert capsys.readouterr().out == "All is well.\n"


def test_doctor_names_what_it_finds_and_answers_no(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = next((project / ".clewline/blobs/packs").glob("*.pack"))
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    assert status(["doctor"]) == 1
    assert "flipped byte  The blob" in capsys.readouterr().out
    assert status(["doctor", "--json"]) == 1
    assert [found["kind"] for found in msgspec.json.decode(capsys.readouterr().out)] == [
        "flipped byte"
    ]


def test_doctor_mends_what_needs_no_judgement(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = next((project / ".clewline/blobs/packs").glob("*.pack"))
    with pack.open("ab") as file:
        file.write(pack.read_bytes()[:20])
    assert status(["doctor", "--quick"]) == 1
    assert status(["doctor", "--mend"]) == 0
    assert capsys.readouterr().out.endswith("All is well.\n")


def test_why_loads_nothing_that_loads_slowly(project: Path) -> None:
    script = (
        "import sys; from clewline.cli.main import status; assert status(['why', '4f9a']) == 0; "
        "slow = {'sqlalchemy', 'alembic', 'numpy', 'polars', 'sklearn', 'onnxruntime'}; "
        "sys.exit(', '.join(slow & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
