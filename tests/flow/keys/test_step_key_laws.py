"""A key changes with every dependency of a step, and with nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def load_projects():
    space: dict = {}
    exec(compile((HERE / "projects.py").read_text(), "projects.py", "exec"), space)
    return space["PROJECT"], space["CHANGES"], space["REST"]


PROJECT, CHANGES, REST = load_projects()


def write(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


def edited(name: str, old: str, new: str) -> dict[str, str]:
    assert PROJECT[name].count(old) == 1, (name, old)
    return {**PROJECT, name: PROJECT[name].replace(old, new)}


def keys(folders: list[str], **env: str) -> dict[str, dict]:
    environ = {**os.environ, **env}
    command = [sys.executable, str(HERE / "keyed.py"), *folders]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for folder, answer in answers.items():
        assert "error" not in answer, (folder, answer)
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Keys of the project, of a copy, and of every edit of it."""
    root = tmp_path_factory.mktemp("keys")
    projects = {"base": PROJECT, "copy": PROJECT}
    for edit in (*CHANGES, *REST):
        projects[repr(edit)] = edited(*edit)
    folders = {
        name: write(root / f"{at:03d}", files) for at, (name, files) in enumerate(projects.items())
    }
    found = keys(list(folders.values()), PYTHONHASHSEED="1")
    return {name: found[folder] for name, folder in folders.items()} | {"folders": folders}


def test_the_project_can_be_keyed(answers):
    assert answers["base"]["uncacheable"] is None
    assert answers["base"]["digest"]


def test_equal_code_in_another_folder_process_and_hash_seed_has_an_equal_key(answers):
    folder = answers["folders"]["base"]
    again = keys([folder], PYTHONHASHSEED="2")[folder]
    assert again["parts"] == answers["base"]["parts"]
    assert answers["copy"]["parts"] == answers["base"]["parts"]
    assert again["digest"] == answers["base"]["digest"] == answers["copy"]["digest"]


@pytest.mark.parametrize("edit", CHANGES, ids=repr)
def test_an_edit_of_a_dependency_changes_the_key(answers, edit):
    assert answers[repr(edit)]["uncacheable"] is None
    assert answers[repr(edit)]["digest"] != answers["base"]["digest"]


@pytest.mark.parametrize("edit", REST, ids=repr)
def test_an_edit_of_other_code_leaves_the_key(answers, edit):
    assert answers[repr(edit)]["parts"] == answers["base"]["parts"]
    assert answers[repr(edit)]["digest"] == answers["base"]["digest"]


def test_environment_variables_that_the_code_reads_are_in_the_key(answers):
    folder = answers["folders"]["base"]
    base = answers["base"]["digest"]
    for name in ("CLEWLINE_TEST_READ", "CLEWLINE_TEST_GET", "CLEWLINE_TEST_AT_IMPORT"):
        assert keys([folder], **{name: "set"})[folder]["digest"] != base
