"""Many runs are compared at once, with what differs first."""

from __future__ import annotations

import math

import pytest

from clewline.errors import UsageError
from clewline.flow.run_comparison import compare_values
from clewline.store.records import Run


def run(**more: object) -> Run:
    return Run(**{"id": "a", "pipeline": "p", "status": "done", "started": 1.0, **more})


def test_what_differs_comes_first_parameters_before_metrics() -> None:
    found = compare_values(
        [
            run(params={"same": 1, "opt": {"rate": 0.1}}, metrics={"nan": math.nan, "auc": 0.9}),
            run(params={"same": 1, "opt": {"rate": 0.2}}, metrics={"nan": math.nan, "auc": 0.8}),
            run(params={"same": 1, "opt": {"rate": 0.2}}, metrics={"nan": math.nan}),
        ]
    )
    assert [(each.kind, each.name) for each in found if each.differs] == [
        ("param", "opt.rate"),
        ("metric", "auc"),
    ]
    assert found[1].values == [0.9, 0.8, None]
    assert {each.name for each in found[2:]} == {"pipeline", "seed", "same", "nan"}


def test_more_than_a_hundred_are_refused() -> None:
    with pytest.raises(UsageError, match="At most 100"):
        compare_values([run()] * 101)
