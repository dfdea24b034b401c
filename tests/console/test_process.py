"""`clewline up` shows the console, and keeps it apart from the prediction server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import start_process, wait_for

from clewline.scaffold import create
from clewline.serve.access import add_token
from clewline.store.store import Store


class Up:
    """`clewline up` in a process of its own."""

    def __init__(self, root: Path, *words: str) -> None:
        command = [sys.executable, "-m", "clewline.cli.main", "up", "--port", "0", *words]
        self.process = start_process(command, cwd=root, stderr=subprocess.PIPE, text=True)
        self.console = self.server = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"Console: (http\S+)", line):
                self.console = found[1]
            if found := re.search(r"Ready on (http\S+)\. Stop", line):
                self.server = found[1]
                break
        wait_for(lambda: self.status("/login") == 200)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def status(self, path: str, base: str = "") -> int:
        request = urllib.request.Request((base or self.console) + path)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def console_process(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = [each for each in children if "clewline.console.process" in each.cmdline()]
        return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return create(tmp_path / "p", template="empty").root


@pytest.fixture
def up(root: Path) -> Iterator[Up]:
    found = Up(root)
    yield found
    found.end()


def test_it_starts_again_when_it_dies_and_the_server_goes_on(up: Up) -> None:
    first = up.console_process()
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: up.status("/login") == 200 and up.console_process().pid != first.pid)
    assert up.status("/health/live", up.server) == 200


def test_it_ends_with_the_server_however_that_ends(up: Up) -> None:
    process = up.console_process()
    up.process.kill()
    up.process.wait()
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_its_secret_is_in_no_argument_and_no_variable(up: Up) -> None:
    process = up.console_process()
    assert not re.search(r"[0-9a-f]{32}", " ".join(process.cmdline()))
    assert not any("console" in name.lower() for name in process.environ())


def test_with_tokens_required_it_asks_for_a_login_and_still_reads_the_servers_metrics(
    root: Path,
) -> None:
    with Store.open(root / ".clewline") as store:
        from clewline.project import load

        add_token(load(root), store, ["view"])
    up = Up(root, "--require-tokens")
    try:
        assert up.status("/metrics", up.server) == 401
        with urllib.request.urlopen(up.console + "/") as answer:
            assert answer.url.startswith(up.console + "/login")
    finally:
        up.end()
