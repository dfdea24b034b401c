"""An installed distribution may offer a kind of explanation, which is kept and shown like ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from explained import classified, fitted, serve_two_rows
from sklearn.tree import DecisionTreeClassifier

from clewline import entry_points, explainer_kinds
from clewline.cli.main import status
from clewline.explain.explain_prediction import explain_prediction, stored_explanations

PLUG_IN = """
from typing import Annotated

import msgspec

from clewline.plugins import ExplainerOptions, Explanation


class RangeOptions(ExplainerOptions, frozen=True, kw_only=True):
    margin: Annotated[float, msgspec.Meta(ge=0, description="added on both sides")] = 0.0


class RangeExplanation(Explanation, frozen=True, kw_only=True):
    kind: str = "range"
    status: str
    low: float
    high: float


class RangeExplainer:
    kind, options, explanation = "range", RangeOptions, RangeExplanation

    def preference(self, model):
        return 1

    def explain(self, row, options):
        numbers = row.background.numbers[:, 0]
        low, high = float(numbers.min()), float(numbers.max())
        return RangeExplanation(
            **row.facts(options),
            status="found",
            low=low - options.margin,
            high=high + options.margin,
            model_rows=0,
        )
"""


@pytest.fixture
def plug_in(tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "site"
    about = folder / "range_plug_in-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "range_plug_in.py").write_text(PLUG_IN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: range-plug-in\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[clewline.explainers]\nrange = range_plug_in:RangeExplainer\n"
    )
    sys.path.insert(0, str(folder))
    for cached in (entry_points.names, explainer_kinds.explainer_of):
        cached.cache_clear()  # a process does not install packages while it runs
    yield
    sys.path.remove(str(folder))
    for cached in (entry_points.names, explainer_kinds.explainer_of):
        cached.cache_clear()


@pytest.mark.usefixtures("plug_in")
def test_a_kind_of_a_plug_in_has_every_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    train = classified()
    model = fitted(DecisionTreeClassifier(max_depth=2, random_state=0), train)
    rules = "model: m@1\nexplain: {kind: range, margin: 2, when: 'age > 3'}"
    project, ids = serve_two_rows(tmp_path / "project", model, train, rules)
    assert status(["explain", ids[0]]) == 0
    printed = capsys.readouterr().out
    assert "low              15.0" in printed
    (record,) = stored_explanations(project, ids[0])
    assert (record.kind, record.options, record.made_by) == (
        "range",
        {"margin": 2.0},
        "range-plug-in 1.0",
    )
    wider = explain_prediction(project, ids[0], "range", {"margin": "3"}).explanation
    assert getattr(wider, "low", None) == 14.0
    assert status(["explain", ids[0], "--margn", "3", "--kind", "range"]) == 2
    assert "Did you mean 'margin'" in capsys.readouterr().err
