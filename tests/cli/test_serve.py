"""The server as a process: it announces its address, drains on SIGTERM, and shares no port."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from projects import make_project
from support import process

from clewline.cli import main

CLEWLINE = Path(sys.executable).with_name("clewline")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without endpoints."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path).root


def test_a_server_announces_its_address_refuses_a_second_on_its_port_and_stops_on_sigterm(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(CLEWLINE), "serve", "--port", "0"]
    with process(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = ""
        while "Ready" not in said:
            said += (line := server.stderr.readline())
            assert line, said
        assert "clewline endpoints apply" in said
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found is not None
        with urllib.request.urlopen(f"{found[0]}/health/ready", timeout=5) as answer:
            assert json.load(answer) == {"status": "ready", "workers": {"ready": 1, "of": 1}}
        assert main.status(["serve", "--port", found[1]]) == 2
        assert f"Port {found[1]}" in capsys.readouterr().err
        server.terminate()
        assert server.wait() == 0
        assert "every answered prediction is in the log" in server.stderr.read()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--port", "70000"], 2, "--port must be at most 65535 (got 70000)"),
        (["--host", "0.0.0.0", "--port", "0"], 2, "there is no valid token"),
        (["--host", "example", "--port", "0"], 2, "not an IP address"),
        (["nope", "--access-log", "-", "--port", "0"], 2, "There is no endpoint 'nope'"),
    ],
)
def test_a_wrong_call_is_explained(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    assert main.status(["serve", *words]) == status
    assert said in capsys.readouterr().err


def test_a_server_that_cannot_start_says_why_once(project: Path) -> None:
    command = [str(CLEWLINE), "serve", "nope", "--port", "0"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("There is no endpoint 'nope'") == 1, done.stderr
