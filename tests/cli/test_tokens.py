"""Tokens on the command line: shown once, listed without secrets, revoked for good."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from projects import make_project

from clewline.cli import main


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call a command in a project; give its status, output and messages."""
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        status = main.status(["tokens", *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_a_token_is_printed_alone_and_never_again(run):
    status, out, err = run("add", "--role", "predict", "--role", "review", "--note", "Ana's laptop")
    assert status == 0
    assert out.startswith("cl_")
    assert out.count("\n") == 1
    assert "only once" in err
    secret = out.strip().rpartition("_")[2]
    _, listed, _ = run("list")
    assert "predict, review" in listed
    assert "Ana's laptop" in listed
    assert secret not in listed
    assert secret not in run("list", "--json")[1]


def test_a_token_expires_and_can_be_revoked(run):
    status, out, _ = run("add", "--role", "operate", "--expires", "2h", "--json")
    made = json.loads(out)
    assert status == 0
    assert made["token"].startswith(f"cl_{made['id']}_")
    assert abs(made["expires"] - time.time() - 7200) < 60
    assert run("revoke", made["id"])[0] == 0
    (listed,) = json.loads(run("list", "--json")[1])
    assert listed["revoked"] is not None
    assert not listed["valid"]
    assert "revoked" in run("list")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add"], "role"),
        (["add", "--role", "admin"], "admin"),
        (["add", "--role", "predict", "--expires", "soon"], "not a duration"),
        (["add", "--role", "predict", "--expires", "0s"], "expired already"),
        (["revoke", "000000000000"], "There is no token"),
    ],
)
def test_a_wrong_call_is_explained(run, words, said):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert said in err


def test_an_empty_list_of_tokens_says_how_to_add_one(run):
    assert "clewline tokens add" in run("list")[2]
