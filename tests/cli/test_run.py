"""`clewline run`, `runs`, `cache` and `replay`, as a user calls them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from clewline.cli.main import status
from clewline.store import Store
from clewline.store.records import CacheEntry, StepRun

PIPELINE = """
from __future__ import annotations
import clewline as cl

@cl.step
def load(rows: int) -> list[int]:
    print("loading", rows)
    return list(range(rows))

@cl.step
def fit(table: list[int], factor: float) -> float:
    cl.log_metric("score", sum(table) * factor)
    return sum(table) / (factor - 1)

@cl.pipeline
def main(rows: int = 3, factor: float = 2.0):
    fit(load(rows), factor)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / "proj"
    root.mkdir()
    (root / "clewline.toml").write_text('[project]\nname = "proj"\nid = "0"\n')
    (root / "pipelines.py").write_text(PIPELINE)
    Store.create(root / ".clewline").close()
    monkeypatch.chdir(root)
    before = list(sys.path)
    yield root
    sys.path[:] = before


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of a command."""
    code = status(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def answered(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The answer of a command as JSON."""
    code, out, err = called(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_run_prints_its_result_on_stdout_and_its_progress_on_stderr(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, "run", "main", "rows=4")
    assert code == 0
    assert "done in" in out
    assert "score 12" in out
    assert "loading 4" in err
    assert "✓ 01-fit done" in err
    code, out, err = called(capsys, "run", "main", "rows=4")
    assert "= 00-load cached from" in err
    assert "loading" not in err


def test_with_json_stdout_is_the_answer_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = answered(capsys, "run", "main")
    assert data["params"] == {"rows": 3, "factor": 2.0}
    assert [step["status"] for step in data["steps"]] == ["done", "done"]


def test_runs_are_listed_shown_and_compared(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "No runs yet" in called(capsys, "runs", "list")[1]
    first = answered(capsys, "run", "main")["id"]
    second = answered(capsys, "run", "main", "factor=3")["id"]
    listed = answered(capsys, "runs", "list", "--pipeline", "main")
    assert [run["id"] for run in listed] == [second, first]
    assert first in called(capsys, "runs", "list")[1]
    shown = called(capsys, "runs", "show", second[:6], "--logs")[1]
    assert "| loading 3" in shown  # of the run that it was remembered from
    assert "factor=3.0" in shown
    compared = called(capsys, "runs", "diff", first, second)[1]
    assert "factor: 2 → 3" in compared
    assert "score: 6 → 9" in compared
    assert "outputs of step 01-fit changed" in compared
    same = called(capsys, "runs", "diff", first, first)[1]
    assert "do not differ" in same


def test_a_failing_run_exits_with_1_and_shows_no_traceback(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = called(capsys, "run", "main", "factor=1")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "pipelines.py:13 in fit" in err
    assert "Traceback" not in err
    run = answered(capsys, "runs", "list")[0]
    assert run["status"] == "failed"
    assert "ZeroDivisionError" in called(capsys, "runs", "show", run["id"])[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "mian"], "Did you mean 'main'"),
        (["run", "main", "rows=x"], "rows='x' is not of type int"),
        (["runs", "show", "ffffff"], "no run 'ffffff'"),
        (["replay", "ffffff"], "no run 'ffffff'"),
        (["replay", "wine@1"], "wine"),
        (["cache", "explain", "mian"], "Did you mean 'main'"),
    ],
)
def test_a_wrong_call_exits_with_2_and_shows_the_right_one(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    code, _, err = called(capsys, *words)
    assert code == 2
    assert says in err


def test_cache_explain_shows_which_steps_would_run_and_why(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called(capsys, "run", "main")
    told = answered(capsys, "cache", "explain", "main", "factor=4")
    assert [(step["step"], step["verdict"]) for step in told] == [
        ("00-load", "hit"),
        ("01-fit", "miss"),
    ]
    assert "factor" in called(capsys, "cache", "explain", "main", "factor=4")[1]


def test_the_command_fixes_the_hash_seed_and_replay_answers_by_its_status(project: Path) -> None:
    (project / "pipelines.py").write_text(
        PIPELINE.replace("return list(range(rows))", "return [hash('a') % 97]")
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
    command = Path(sys.executable).with_name("clewline")

    def clewline(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *words], env=environment, capture_output=True, text=True, check=False
        )

    made = json.loads(clewline("run", "main", "--json").stdout)
    assert made["environment"]["hash_seed"] == "0"
    done = clewline("replay", made["id"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is equal: 2 artifacts" in done.stdout
    (project / "pipelines.py").write_text(
        PIPELINE.replace("return list(range(rows))", "import os; return list(os.urandom(2))")
    )
    shaky = json.loads(clewline("run", "main", "--json").stdout)
    differs = clewline("replay", shaky["id"])
    assert differs.returncode == 1
    assert "first in step 00-load" in differs.stdout


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["run", "caf\udce9"], "usage", r"'caf\\udce9' is not UTF-8 text"),
        (["runs", "list", "--limit", "many"], "usage", "--limit"),
        (["models", "show", "x@99999999999999999999"], "not_found", "no model 'x'"),
    ],
)
def test_a_wrong_call_is_refused_in_the_shape_that_was_asked_for(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str, told: str
) -> None:
    assert status([*words, "--json"]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == code
    assert re.search(told, error["message"])


def test_a_project_that_the_disk_has_no_room_for_is_refused_as_such(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "from clewline.cli.main import status\n"
        "sys.exit(status(['init', sys.argv[1], '--json']))\n"
    )
    command = [sys.executable, "-B", "-c", program, str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (3, "store_full")


def test_a_sample_of_cached_steps_is_run_again(project: Path, capsys: Any) -> None:
    assert called(capsys, "run", "main")[0] == 0
    code, out, _ = called(capsys, "cache", "check", "--sample", "100%", "--seed", "7")
    assert code == 0
    assert "2 of 2 cached steps, seed 7: 2 equal, 0 false hits" in out
    assert "Rate of false hits: 0.00%, 95 % interval 0.00% to 65.76% (Wilson)" in out
    with Store.open(project / ".clewline") as store:  # as if a dependency had been missed
        [fit] = store.catalog.find(CacheEntry, function="pipelines:fit", limit=None)
        [load] = store.catalog.find(CacheEntry, function="pipelines:load", limit=None)
        step = store.catalog.get(StepRun, fit.step_run)
        store.record(replace(fit, outputs=load.outputs), replace(step, outputs=load.outputs))
    code, out, _ = called(capsys, "cache", "check", "--sample", "1.0")
    assert code == 1
    assert f"✗ {fit.step_run} false hit" in out
    assert "Rate of false hits: 50.00%" in out
    assert "clewline run --no-cache" in out
    code, _, err = called(capsys, "cache", "check", "--sample", "most")
    assert code == 2
    assert "'most' is not a share" in err
