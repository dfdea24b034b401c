"""One explaining process serves all workers of a server, whichever of them ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from explained import GOOD, HANGS, odd_project
from support import PATIENCE_S, process, wait_for


class Served:
    """`clewline serve` with two workers, and the ids of predictions in its log."""

    def __init__(self, started: subprocess.Popen[str], port: int, ids: list[str]) -> None:
        self.process, self.port, self.ids = started, port, ids

    def explain(self, prediction: str) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}/v1/predictions/{prediction}/explain"
        try:
            with urllib.request.urlopen(url, b"{}", timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def children(self, module: str) -> list[int]:
        """The ids of the processes below the server that run a module."""
        return [pid for pid, command in self.commands().items() if module in command]

    def commands(self) -> dict[int, list[str]]:
        """The processes below the server, each with its command."""
        found = {}
        for each in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has just ended
                found[each.pid] = each.cmdline()
        return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    _, ids = odd_project(tmp_path)
    words = ["-m", "clewline.cli.main", "serve", "--port", "0", "--workers", "2"]
    command = [sys.executable, *words, "--explain-timeout", "2"]
    with process(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as started:
        said = iter(started.stderr.readline, "")
        port = next(
            int(found[1]) for line in said if (found := re.search(r"Ready on .*:(\d+)\.", line))
        )
        threading.Thread(target=lambda: list(said), daemon=True).start()
        yield Served(started, port, ids)


def test_workers_and_the_explaining_process_end_without_each_other(served: Served) -> None:
    good = served.ids[GOOD]
    assert served.children("clewline.workers.explaining_worker") == []  # nobody has asked
    status, found = served.explain(good)
    assert (status, found["prediction"]) == (200, good)
    workers = served.children("clewline.workers.worker")
    explaining = served.children("clewline.workers.explaining_worker")
    assert (len(workers), len(explaining)) == (2, 2)  # one, and its subreaper

    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len(set(served.children("clewline.workers.worker")) - set(workers)) == 2)
    assert served.explain(good) == (200, found)
    assert served.children("clewline.workers.explaining_worker") == explaining

    for each in explaining:
        os.kill(each, signal.SIGKILL)
    assert served.explain(good) == (200, found)
    assert len(served.children("clewline.workers.worker")) == 2

    # A stopping server answers those who wait, and takes what the model has started with it.
    answers: list[tuple[int, Any]] = []
    callers = [
        threading.Thread(target=lambda id_=id_: answers.append(served.explain(id_)))
        for id_ in (served.ids[HANGS], good, good)
    ]
    for caller in callers:
        caller.start()
    wait_for(lambda: ["sleep", "601"] in served.commands().values())
    before = served.commands()
    served.process.send_signal(signal.SIGTERM)
    for caller in callers:
        caller.join(PATIENCE_S)
    assert sorted(status for status, _ in answers) == [200, 200, 500]
    served.process.wait(PATIENCE_S)
    assert not [pid for pid in before if psutil.pid_exists(pid)]
