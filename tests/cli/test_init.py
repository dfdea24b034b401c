"""What `clewline init` suggests, and what it leaves in a checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from clewline.cli.main import status

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

PIPELINE = """
import clewline as cl

def helper(rows): ...

@cl.pipeline
def sales(data: str, year: int, trees: int = 100, *, region: str, seed: int = 0): ...
"""


def test_it_suggests_a_run_with_each_parameter_that_has_no_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/sales.py").write_text(PIPELINE)
    assert status(["init", "--template", "empty", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "clewline run sales data=DATA year=YEAR region=REGION\n" in said


def test_the_folder_that_it_suggests_is_quoted_for_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(["init", "--template", "empty", "my project"]) == 0
    assert "cd 'my project'\n" in capsys.readouterr().out


def test_the_example_becomes_a_project_and_the_checkout_stays_clean(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        named = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *named, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    ignored = shutil.ignore_patterns(".clewline", "clewline.toml")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "Begin")
    income = tmp_path / "examples/income"
    assert status(["init", "--template", "empty", str(income)]) == 0
    assert (income / "clewline.toml").exists()
    assert git("status", "--porcelain") == ""
