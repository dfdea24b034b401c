"""
clewline takes a model from training run to production decision, and keeps the line.

    import clewline as cl

    @cl.step, @cl.pipeline           make functions whose executions are recorded
    cl.evaluate, cl.register         measure a model; register it as a version
    cl.log, cl.figure, cl.file       record onto the step that is going on
    cl.open                          read the store from Python

Each loads on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clewline.api import open as open
    from clewline.evaluation.report import evaluate as evaluate
    from clewline.flow.pipeline import pipeline as pipeline
    from clewline.flow.record import figure as figure
    from clewline.flow.record import file as file
    from clewline.flow.record import log as log
    from clewline.flow.step import step as step
    from clewline.model.register import register as register

__version__ = "0.1.0"

__all__ = ["evaluate", "figure", "file", "log", "open", "pipeline", "register", "step"]

_HOMES = {
    "evaluate": "clewline.evaluation.report",
    "figure": "clewline.flow.record",
    "file": "clewline.flow.record",
    "log": "clewline.flow.record",
    "open": "clewline.api",
    "pipeline": "clewline.flow.pipeline",
    "register": "clewline.model.register",
    "step": "clewline.flow.step",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clewline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
