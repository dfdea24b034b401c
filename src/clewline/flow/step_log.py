"""
What a step says while it runs, on disk at once: its log and its metrics.

Each run has a folder `.clewline/tmp/run-ID` with `NN-name.log` and
`NN-name.metrics` (a JSON line a call). A write is in the kernel's hands when it
returns, so it outlives a killed process; the folder goes when the run has ended
and everything in it stands in the catalog.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from clewline.store.records import Artifact, StepRun


def folder_of(store_root: Path, run_id: str) -> Path:
    """Where a run that has not ended keeps its journals."""
    return store_root / "tmp" / f"run-{run_id}"


class StepJournal:
    """The notes of one step run. May be written from any thread."""

    def __init__(self, folder: Path, step_id: str, attach: Callable[[str, Artifact], None]) -> None:
        self._path = folder / step_id.partition("/")[2]
        self._attach = attach
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()
        self.values: dict[str, float] = {}
        self.files: dict[str, Artifact] = {}

    def write(self, text: str) -> None:
        """Append to the log."""
        if text:
            self._append(".log", text.encode("utf-8", "replace"))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record metrics; the last value of a name counts."""
        self.values.update(values)
        self._append(".metrics", msgspec.json.encode(_kept(values)) + b"\n")

    def attach(self, name: str, artifact: Artifact) -> None:
        """Record a stored value under a name, durable when this returns."""
        self.files[name] = artifact
        self._attach(name, artifact)

    @property
    def log(self) -> Path | None:
        """The file of the log, None when nothing was printed."""
        path = self._path.with_name(self._path.name + ".log")
        return path if path.is_file() else None  # a forked child may have written it alone

    def close(self) -> None:
        """Close the files; they stay until the run has ended."""
        with self._lock:
            for file in self._files.values():
                os.close(file)
            self._files = dict.fromkeys(self._files, -1)

    def _append(self, ending: str, data: bytes) -> None:
        with self._lock:
            file = self._files.get(ending)
            if file == -1:
                return  # a thread that outlived its step: there is no step to write to
            if file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                name = self._path.with_name(self._path.name + ending)
                file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                self._files[ending] = file
            os.write(file, data)


def left_log(store_root: Path, step: StepRun) -> Path | None:
    """The log of a step run that is running or was killed; None when it printed nothing."""
    path = _left(store_root, step, ".log")
    return path if path.is_file() else None


def left_metrics(store_root: Path, step: StepRun) -> dict[str, float]:
    """The metrics of a step run that is running or was killed."""
    path = _left(store_root, step, ".metrics")
    found: dict[str, float | str] = {}
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        if line.endswith(b"\n"):  # the last one may be torn
            found |= msgspec.json.decode(line, type=dict[str, float | str])
    return {name: float(value) for name, value in found.items()}


def left_steps(store_root: Path, run_id: str) -> list[str]:
    """The names `NN-name` of the steps that have said something."""
    folder = folder_of(store_root, run_id)
    return sorted({path.stem for path in folder.glob("*")}) if folder.is_dir() else []


def remove(store_root: Path, run_id: str) -> None:
    """Remove the journals of a run that has ended."""
    shutil.rmtree(folder_of(store_root, run_id), ignore_errors=True)


def _left(store_root: Path, step: StepRun, ending: str) -> Path:
    name = step.id.partition("/")[2]
    return folder_of(store_root, step.run) / f"{name}{ending}"


def _kept(values: Mapping[str, float]) -> dict[str, float | str]:
    """JSON has no NaN and no infinity: these are written as text that float() reads."""
    return {
        name: value if abs(value) < float("inf") else str(value) for name, value in values.items()
    }
