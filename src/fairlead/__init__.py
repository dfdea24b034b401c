"""
fairlead takes a model from training run to production decision, and keeps the line.

    import fairlead as fl

    @fl.step, @fl.pipeline           make functions whose executions are recorded
    fl.evaluate, fl.register         measure a model; register it as a version
    fl.log, fl.figure, fl.file       record onto the step that is going on
    fl.open                          read the store from Python

Each loads on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead.api import open as open
    from fairlead.evaluate.report import evaluate as evaluate
    from fairlead.flow.pipeline import pipeline as pipeline
    from fairlead.flow.record import figure as figure
    from fairlead.flow.record import file as file
    from fairlead.flow.record import log as log
    from fairlead.flow.step import step as step
    from fairlead.model.register import register as register

__version__ = "0.1.0"

__all__ = ["evaluate", "figure", "file", "log", "open", "pipeline", "register", "step"]

_HOMES = {
    "evaluate": "fairlead.evaluate.report",
    "figure": "fairlead.flow.record",
    "file": "fairlead.flow.record",
    "log": "fairlead.flow.record",
    "open": "fairlead.api",
    "pipeline": "fairlead.flow.pipeline",
    "register": "fairlead.model.register",
    "step": "fairlead.flow.step",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fairlead' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """
    Keeps `fairlead.evaluate` the function.

    The folder `evaluate/` bears the same name, and importing it would otherwise
    set the attribute to the folder's module from then on. What is in the folder
    is imported as `from fairlead.evaluate.report import Report`.
    """

    @property
    def evaluate(self) -> Any:
        return __getattr__("evaluate")

    @evaluate.setter
    def evaluate(self, module: ModuleType) -> None:
        """The import system offers the folder's module here; `sys.modules` has it already."""


sys.modules[__name__].__class__ = _Package
