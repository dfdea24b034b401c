"""A step log survives its process, and a torn line at its end."""

from __future__ import annotations

from pathlib import Path

from clewline.flow.step_log import (
    StepLog,
    log_on_disk,
    metrics_on_disk,
    remove_logs,
    run_folder,
    steps_on_disk,
)
from clewline.store.records import StepRun


def test_a_torn_last_line_is_ignored(tmp_path: Path) -> None:
    step = StepRun(id="r/00-fit", run="r", index=0, name="fit", status="running", started=0.0)
    notes = StepLog(run_folder(tmp_path, "r"), step.id, lambda name, kept: None)
    assert metrics_on_disk(tmp_path, step) == {}
    notes.metrics({"a": 1.0})
    notes.metrics({"a": 2.0, "b": 3.0})
    path = run_folder(tmp_path, "r") / "00-fit.metrics"
    path.write_bytes(path.read_bytes() + b'{"a": 9')
    assert metrics_on_disk(tmp_path, step) == {"a": 2.0, "b": 3.0}
    assert log_on_disk(tmp_path, step) is None
    assert steps_on_disk(tmp_path, "r") == ["00-fit"]
    notes.close()
    notes.write("too late")
    remove_logs(tmp_path, "r")
    assert steps_on_disk(tmp_path, "r") == []
