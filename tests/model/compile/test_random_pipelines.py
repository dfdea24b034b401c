"""A short hunt for a served answer that differs; `scripts/bench equivalence` is the long one."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest
from support import TREES_IN_ONNX

pytest.importorskip("lightgbm")
pytest.importorskip("xgboost")
pytest.importorskip("catboost")

PIPELINES = 40


@TREES_IN_ONNX
def test_no_random_pipeline_is_served_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed is another each time; what fails prints the command that repeats it."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[3] / "bench"), *sys.path])
    from equivalence import compiler, hunt

    for calls in ("OWN_CALLS", "ONNX_CALLS"):  # a hunt sets them; keep them for other tests
        monkeypatch.setattr(compiler, calls, getattr(compiler, calls))
    found = hunt(secrets.randbelow(2**32), range(PIPELINES))
    assert not found.differing, "\n".join(found.differing)
    assert sum(found.served.values()) > PIPELINES / 2
    assert found.jumps
