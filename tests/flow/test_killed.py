"""The records of a run survive its process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import process, wait_for

from clewline.flow import step_log
from clewline.flow.runs import close_dead_runs, list_runs, log_of, steps_of, with_live_status
from clewline.store.records import Run, StepRun

SLOW = """
    import time

    @cl.step
    def load() -> int:
        print("loaded")
        return 1

    @cl.step
    def train(x: int) -> int:
        for epoch in range(5):
            cl.log_metrics({"epoch": epoch, "loss": 1 / (epoch + 1)})
            print("epoch", epoch)
        Path("ready").touch()
        while Path("ready").exists():
            time.sleep(0.01)
        return x

    @cl.pipeline
    def main():
        train(load())
"""

START = "from clewline.cli.main import main; main(['run', 'main'])"


@pytest.fixture
def started(bench: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A run of its own process, inside its second step, whose beginning is durable."""
    bench.write("pipelines.py", SLOW)
    command = [sys.executable, "-c", START]
    with process(command, cwd=bench.root, stderr=subprocess.PIPE) as started:
        wait_for(lambda: (bench.root / "ready").exists() or started.poll() is not None)
        wait_for(lambda: bench.store.catalog.count(StepRun) == 2 or started.poll() is not None)
        if started.poll() is not None:
            pytest.fail(started.stderr.read().decode())
        yield started


def test_a_killed_run_is_interrupted_and_keeps_its_logs_and_metrics(
    bench: Any, started: subprocess.Popen[bytes]
) -> None:
    running = list_runs(bench.store)[0]
    assert (running.status, running.metrics["epoch"]) == ("running", 4.0)
    started.kill()
    started.wait()

    run = list_runs(bench.store)[0]
    load, train = steps_of(bench.store, run)
    assert (run.status, load.status, train.status) == ("interrupted", "done", "interrupted")
    assert run.metrics == {"epoch": 4.0, "loss": 0.2}
    assert log_of(bench.store, load) == "loaded\n"
    assert log_of(bench.store, train).endswith("epoch 3\nepoch 4\n")

    (bench.root / "ready").unlink()
    assert close_dead_runs(bench.store) == [run.id]
    stored = bench.store.catalog.get(Run, run.id)
    assert (stored.status, stored.metrics) == ("interrupted", run.metrics)
    assert not step_log.run_folder(bench.store.root, run.id).exists()
    kept = steps_of(bench.store, with_live_status(bench.store, stored))
    assert [log_of(bench.store, step) for step in kept][1].endswith("epoch 4\n")
    bench.write("pipelines.py", SLOW.replace('Path("ready").touch()', "pass"))
    assert bench.steps(bench.run())[0].status == "cached"


def test_sigterm_ends_a_run_in_order(bench: Any, started: subprocess.Popen[bytes]) -> None:
    started.send_signal(signal.SIGTERM)
    _, stderr = started.communicate()
    run = bench.store.catalog.find(Run)[0]
    assert started.returncode == 130
    assert b"was interrupted, and is recorded so" in stderr
    assert (run.status, run.metrics["epoch"]) == ("interrupted", 4.0)


def test_a_step_that_wrote_before_it_was_recorded_is_not_lost(bench: Any, tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "from clewline.store.locks import *; print(this_process())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    run = Run(id="aaaabbbbcccc", pipeline="p", status="running", process=dead, started=1.0)
    bench.store.record(run)
    notes = step_log.StepLog(
        step_log.run_folder(bench.store.root, run.id), f"{run.id}/00-fit", lambda name, kept: None
    )
    notes.metrics({"loss": float("nan"), "gain": float("-inf"), "rows": 3.0})
    notes.write("hello\n")
    notes.close()
    close_dead_runs(bench.store)
    step = bench.steps(run)[0]
    assert (step.id, step.status) == ("aaaabbbbcccc/00-fit", "interrupted")
    assert str(step.metrics) == "{'loss': nan, 'gain': -inf, 'rows': 3.0}"
    assert log_of(bench.store, step) == "hello\n"
