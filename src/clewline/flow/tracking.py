"""
Record metrics, figures and files onto the step that is running.

A step that is called outside a pipeline is the plain function, and records nothing.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clewline.errors import NotFound, UsageError
from clewline.flow.context import StepContext, current_step, is_plain_call
from clewline.store.records import is_utf8

_TICK_S = 0.01
"""File systems stamp files by the kernel's clock, which lags by up to one tick."""


def log_metric(name: str, value: float) -> None:
    """
    Record a metric onto the running step. A later value replaces an earlier one.

    Args:
        value: A number, or an array that holds exactly one.

    Raises:
        UsageError: No step is running, the value is not a number, or the name is not UTF-8.

    Example:
        `cl.log_metric("accuracy", 0.97)`
    """
    _log_metrics("log_metric", {name: value})


def log_metrics(metrics: Mapping[str, float]) -> None:
    """
    Record several metrics onto the running step.

    Raises:
        UsageError: No step is running, a value is not a number, or a name is not UTF-8.

    Example:
        `cl.log_metrics({"accuracy": 0.97, "rows": 569})`
    """
    _log_metrics("log_metrics", metrics)


def log_figure(figure: Any, name: str = "figure") -> None:
    """
    Record a matplotlib figure onto the running step.

    Raises:
        UsageError: No step is running.
        NotStorable: The figure cannot be drawn.
    """
    _attach(_running_step("log_figure"), name, figure)


def log_artifact(path: str | Path, name: str | None = None) -> None:
    """
    Record a file or a folder, as it is now, onto the running step.

    Args:
        name: The name in the record; the file's own by default.

    Raises:
        UsageError: No step is running.
        NotFound: Nothing is at `path`.
    """
    from clewline.flow.keys import file_access

    step = _running_step("log_artifact")
    found = Path(path).absolute()
    if not found.exists():
        raise NotFound(
            f"cl.log_artifact({str(path)!r}): {found} does not exist.", "Write the file first."
        )
    for each in found.rglob("*") if found.is_dir() else [found]:
        # The step itself wrote a file of this time, so reading it is no input. Compiled code
        # writes files without an audit event, which is why the time decides.
        if step and each.is_file() and each.stat().st_mtime >= step.started - _TICK_S:
            file_access.note_access(each, writing=True)
    _attach(step, name or found.name, found)


def log_value(name: str, value: Any) -> None:
    """
    Record any storable value onto the running step.

    A step that stores no output (`store_output=False`) records with it the values
    that a replay compares.
    """
    _attach(_running_step("log_value"), name, value)


def _attach(step: StepContext | None, name: str, value: Any) -> None:
    """Store a value and attach it to a step run."""
    from clewline.flow import values

    if step is not None:
        step.notes.attach(_utf8_name(name), values.save(value, step.store.blobs))


def _log_metrics(caller: str, metrics: Mapping[str, float]) -> None:
    step = _running_step(caller)
    checked: dict[str, float] = {}
    for name, value in metrics.items():
        name = _utf8_name(name)
        if hasattr(value, "item") and getattr(value, "size", 1) == 1:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise UsageError(
                f"cl.{caller}: the metric {name!r} must be a number "
                f"(got {value!r}, of type {type(value).__name__}).",
                "Pass an int or a float; use cl.log_artifact or cl.log_figure for other values.",
            )
        checked[name] = float(value)
    if step is not None:
        step.notes.metrics(checked)


def _running_step(caller: str) -> StepContext | None:
    """Return the step to record on; None in a step that was called as a plain function."""
    step = current_step()
    if step is None and not is_plain_call():
        raise UsageError(
            f"cl.{caller}(…) was called outside a step, so there is nothing to record it on.",
            "Call it inside a function decorated with @cl.step.",
        )
    if step is not None and step.process != os.getpid():
        raise UsageError(
            f"cl.{caller}(…) was called in a child process that the step forked. Only the step's "
            "own process can record.",
            "Return the value from the child process, and record it in the step.",
        )
    return step


def _utf8_name(name: str) -> str:
    if not is_utf8(name):
        raise UsageError(f"The name {name!a} is not valid UTF-8.", "Use another name.")
    return name
