"""
What a step says of itself while it runs: metrics, figures and files.

A step that is called outside a pipeline is the plain function, and records nothing.
"""

from __future__ import annotations

import numbers
import os
from pathlib import Path
from typing import Any

from clewline.errors import NotFound, UsageError
from clewline.flow.context import StepContext, current, plain
from clewline.flow.text import is_text

_TICK_S = 0.01
"""File systems stamp by the kernel's clock, which lags behind by a tick."""


def log(**metrics: float) -> None:
    """
    Record metrics onto the step that is going on; the last value of a name counts.

    Raises:
        UsageError: Outside a step, or a value is not a number.

    Example:
        `cl.log(accuracy=0.97, rows=569)`
    """
    step = _step("log")
    values = {_text(name): _number(name, value) for name, value in metrics.items()}
    if step is not None:
        step.notes.metrics(values)


def figure(figure: Any, name: str = "figure") -> None:
    """
    Record a matplotlib figure onto the step that is going on.

    Raises:
        UsageError: Outside a step.
        NotStorable: It is not a figure that can be drawn.
    """
    step = _step("figure")
    if step is not None:
        keep(step, name, figure)


def file(path: str | Path, name: str | None = None) -> None:
    """
    Record a file or a folder, as it is now, onto the step that is going on.

    Raises:
        UsageError: Outside a step.
        NotFound: Nothing is at `path`.
    """
    step = _step("file")
    found = Path(path).absolute()
    if not found.exists():
        raise NotFound(f"cl.file({str(path)!r}): {found} does not exist.", "Write it first.")
    if step is not None:
        _note_made(found, step.started)
        keep(step, name or found.name, found)


def value(name: str, value: Any) -> None:
    """
    Record any storable value onto the step that is going on, under a name.

    A step that stores no output (`store_output=False`) says with it what a
    replay compares.
    """
    step = _step("value")
    if step is not None:
        keep(step, name, value)


def keep(step: StepContext, name: str, value: Any) -> None:
    """Store a value and attach it to a step run."""
    from clewline.flow import values

    step.notes.attach(_text(name), values.save(value, step.store.blobs))


def _note_made(path: Path, started: float) -> None:
    """
    Say of what the step itself made that reading it now takes nothing in.

    Compiled code writes files unseen, so the time of the file tells it.
    """
    from clewline.flow.keys import watch

    for each in path.rglob("*") if path.is_dir() else [path]:
        if each.is_file() and each.stat().st_mtime >= started - _TICK_S:
            watch.tell(each, writing=True)


def _step(what: str) -> StepContext | None:
    """The step to record on; None in a step that was called as a plain function."""
    step = current()
    if step is None and not plain():
        raise UsageError(
            f"cl.{what}(…) was called outside a step, so there is nothing to record it on.",
            "Call it inside a function decorated with @cl.step.",
        )
    if step is not None and step.process != os.getpid():
        raise UsageError(
            f"cl.{what}(…) was called in a process that the step has forked, and only the step's "
            "own process records.",
            "Return what there is to record, and record it in the step.",
        )
    return step


def _text(name: str) -> str:
    if not is_text(name):
        raise UsageError(f"The name {name!a} is no text in UTF-8.", "Give another name.")
    return name


def _number(name: str, value: Any) -> float:
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise UsageError(
            f"cl.log({name}={value!r}): a metric is a number, and this is {type(value).__name__}.",
            "Give an int or a float; `cl.file` and `cl.figure` record other things.",
        )
    return float(value)
