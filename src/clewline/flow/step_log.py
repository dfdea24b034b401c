"""
The log and the metrics of a running step, on disk at once.

Each run has a folder `.clewline/tmp/run-ID` with `NN-name.log` and
`NN-name.metrics` (a JSON line a call). The kernel holds a write when it returns, so
it survives a killed process. The folder is removed when the run has ended and
the catalog holds everything in it.

`capture_output` writes stdout, stderr, logging and warnings of a step into its log,
at Python's level, while they are shown as usual.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

import msgspec

from clewline.flow.context import current_step
from clewline.store.records import Artifact, StepRun


def run_folder(store_root: Path, run_id: str) -> Path:
    """Return the folder of the step logs of a run that has not ended."""
    return store_root / "tmp" / f"run-{run_id}"


class StepLog:
    """The log, metrics and files of one step run. It may be written from any thread."""

    def __init__(self, folder: Path, step_id: str, attach: Callable[[str, Artifact], None]) -> None:
        self._path = folder / step_id.partition("/")[2]
        self._attach = attach
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()
        self.values: dict[str, float] = {}
        self.files: dict[str, Artifact] = {}

    def write(self, text: str) -> None:
        """Append to the log."""
        if text:
            self._append(".log", text.encode("utf-8", "replace"))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record metrics; a later value replaces an earlier one."""
        self.values.update(values)
        # JSON has no NaN and no infinity: they are strings that float() reads.
        plain = {name: each if math.isfinite(each) else str(each) for name, each in values.items()}
        self._append(".metrics", msgspec.json.encode(plain) + b"\n")

    def attach(self, name: str, artifact: Artifact) -> None:
        """Record a stored value under a name, durable when this returns."""
        self.files[name] = artifact
        self._attach(name, artifact)

    def close(self) -> None:
        """Close the files; they stay on disk until the run has ended."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors = dict.fromkeys((".log", ".metrics"), -1)

    def _append(self, suffix: str, data: bytes) -> None:
        with self._lock:
            descriptor = self._descriptors.get(suffix)
            if descriptor == -1:
                return  # a thread outlived its step, whose log is closed
            if descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                name = self._path.with_name(self._path.name + suffix)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                descriptor = self._descriptors[suffix] = os.open(name, flags, 0o600)
            os.write(descriptor, data)


# What a run that is going on, or was killed, has left on disk


def log_on_disk(store_root: Path, step: StepRun) -> Path | None:
    """Return the log of a step that is running or was killed; None when it printed nothing."""
    path = run_folder(store_root, step.run) / f"{step.label}.log"
    return path if path.is_file() else None  # a child that the step forked may have written it


def metrics_on_disk(store_root: Path, step: StepRun) -> dict[str, float]:
    """Return the metrics of a step that is running or was killed."""
    path = run_folder(store_root, step.run) / f"{step.label}.metrics"
    found: dict[str, float | str] = {}
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        if line.endswith(b"\n"):  # the last one may be torn
            found |= msgspec.json.decode(line, type=dict[str, float | str])
    return {name: float(value) for name, value in found.items()}


def steps_on_disk(store_root: Path, run_id: str) -> list[str]:
    """Return the names `NN-name` of the steps that have written something."""
    return sorted({path.stem for path in run_folder(store_root, run_id).glob("*")})


def remove_logs(store_root: Path, run_id: str) -> None:
    """Remove the step logs of a run that has ended."""
    shutil.rmtree(run_folder(store_root, run_id), ignore_errors=True)


# Capturing what a step prints


@contextmanager
def capture_output() -> Iterator[None]:
    """Write everything that a step prints into its log too, for the duration of a run."""
    out, error = sys.stdout, sys.stderr
    tees = TeeStream(out), TeeStream(error)
    handler = _LogHandler(tees)
    root = logging.getLogger()
    level = root.level
    sys.stdout, sys.stderr = cast(TextIO, tees[0]), cast(TextIO, tees[1])
    root.addHandler(handler)
    if level == logging.WARNING and len(root.handlers) == 1:
        # Nobody configured logging: INFO goes to the step's log, WARNING is shown too.
        root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        # A step may have replaced the streams by its own; those stay.
        if cast(object, sys.stdout) is tees[0]:
            sys.stdout = out
        if cast(object, sys.stderr) is tees[1]:
            sys.stderr = error


def _append_to_log(text: str) -> None:
    step = current_step()
    if step is not None and isinstance(step.notes, StepLog):
        step.notes.write(text)


class TeeStream:
    """A text stream that also writes into the log of the running step."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._is_broken = False

    def write(self, text: str) -> int:
        """Show the text, and append it to the log."""
        _append_to_log(text)
        self.show(text)
        return len(text)

    def show(self, text: str) -> None:
        """Show the text while anyone reads: a run piped into `head` continues silently."""
        self._call("write", text)

    def flush(self) -> None:
        """Flush the stream behind this one."""
        self._call("flush")

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def _call(self, method: str, *args: str) -> None:
        if not self._is_broken:
            try:
                getattr(self._target, method)(*args)
            except BrokenPipeError:
                self._is_broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


class _LogHandler(logging.Handler):
    def __init__(self, tees: tuple[TeeStream, TeeStream]) -> None:
        super().__init__()
        self._tees = tees
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        streams = [getattr(each, "stream", None) for each in logging.getLogger().handlers]
        if any(stream is tee for stream in streams for tee in self._tees):
            return  # a handler of the user's prints the record through our streams
        text = self.format(record) + "\n"
        _append_to_log(text)
        if record.levelno >= logging.WARNING:
            self._tees[1].show(text)
