"""Differences are put into words that a person reads."""

from __future__ import annotations

import pytest

from clewline.cli.change_text import change_text
from clewline.cli.replay import cause_text
from clewline.flow.replay import ReplayCause
from clewline.store.changes import Change

DIGEST = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change("parameter", "trees", "changed", 100, 200), "parameter trees: 100 → 200"),
        (Change("metric", "auc", "added", None, 0.5), "metric auc is new (0.5)"),
        (Change("package", "numpy", "changed", "2.1 a", "2.2 b"), "package numpy: 2.1 → 2.2"),
        (
            Change("package", "numpy", "changed", "2.1 a", "2.1 b"),
            "package numpy 2.1 was installed again",
        ),
        (Change("package", "numpy", "removed", "2.1 a"), "package numpy is gone (2.1)"),
        (Change("code", "a.py:f", "changed", "x", "y"), "code a.py:f changed"),
        (
            Change("constant", "a.py:C", "changed", f"dict {DIGEST}", "1 (int)"),
            "constant a.py:C changed",
        ),
        (Change("environment", "cpus", "changed", 2, 4), "cpus: 2 → 4"),
        (Change("CPU feature", "avx2", "removed", True), "CPU feature avx2 is gone"),
    ],
)
def test_a_change_is_put_into_words(change: Change, text: str) -> None:
    assert change_text(change) == text


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (ReplayCause("unrecorded", reason="it read x.csv"), "it read x.csv"),
        (
            ReplayCause("key", changes=[Change("parameter", "n", "changed", 1, 2)]),
            "parameter n: 1 → 2",
        ),
        (
            ReplayCause("environment", changes=[Change("environment", "cpu", "changed", "a", "b")]),
            "cpu: a → b",
        ),
        (ReplayCause("unreliable"), "does not always succeed"),
        (ReplayCause("not deterministic"), "look for a generator without a seed"),
    ],
)
def test_the_cause_of_a_difference_is_put_into_words(cause: ReplayCause, text: str) -> None:
    assert text in cause_text(cause, "01-fit")
