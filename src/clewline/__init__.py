"""
clewline takes a model from training run to production decision, and keeps its lineage.

    import clewline as cl

    @cl.step, @cl.pipeline                    record the executions of functions
    cl.assess                                 find what in a table may harm a model
    cl.calibrate, cl.evaluate, cl.register    calibrate a model; measure it; register a version
    cl.load                                   ask a registered version in Python
    cl.log_metric, cl.log_metrics,
    cl.log_figure, cl.log_artifact            record onto the running step
    cl.open                                   read the store from Python

Each name loads on first use, so that importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clewline.version import __version__ as __version__

if TYPE_CHECKING:
    from clewline.api import open as open
    from clewline.data.assess import assess as assess
    from clewline.evaluation.evaluate import evaluate as evaluate
    from clewline.flow.pipeline import pipeline as pipeline
    from clewline.flow.step import step as step
    from clewline.flow.tracking import log_artifact as log_artifact
    from clewline.flow.tracking import log_figure as log_figure
    from clewline.flow.tracking import log_metric as log_metric
    from clewline.flow.tracking import log_metrics as log_metrics
    from clewline.model.families.calibrated_model.calibrate import calibrate as calibrate
    from clewline.model.register import register as register
    from clewline.model.registered_model import load as load

# `open` is not here: `from clewline import *` must not shadow the builtin.
__all__ = [
    "assess",
    "calibrate",
    "evaluate",
    "load",
    "log_artifact",
    "log_figure",
    "log_metric",
    "log_metrics",
    "pipeline",
    "register",
    "step",
]

_HOMES = {
    "assess": "clewline.data.assess",
    "calibrate": "clewline.model.families.calibrated_model.calibrate",
    "evaluate": "clewline.evaluation.evaluate",
    "load": "clewline.model.registered_model",
    "log_artifact": "clewline.flow.tracking",
    "log_figure": "clewline.flow.tracking",
    "log_metric": "clewline.flow.tracking",
    "log_metrics": "clewline.flow.tracking",
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
    return sorted({*globals(), *_HOMES})
