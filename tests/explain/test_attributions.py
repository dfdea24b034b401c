"""A logged prediction is explained under the version that answered it."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import polars as pl
import pytest
from explained import attribute, classified, fitted, people, serve_two_rows
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression

import clewline as cl
from clewline.cli import explain as command
from clewline.cli.main import status
from clewline.errors import InvalidInput, NotFound
from clewline.explain.attributions import AttributionExplanation
from clewline.project import Project


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    train = classified()
    model = fitted(RandomForestClassifier(9, random_state=0), train)
    return serve_two_rows(tmp_path_factory.mktemp("forest"), model, train)


def test_an_answer_of_a_forest_is_explained_exactly_in_probabilities(
    forest: tuple[Project, list[str]],
) -> None:
    project, ids = forest
    with cl.open(project.root) as store:
        for identifier, label in zip(ids, ("no", "yes"), strict=True):
            found = store.predictions.explain(identifier)
            assert isinstance(found, AttributionExplanation)
            answer = msgspec.json.decode(store.predictions.get(identifier).answer)
            assert (found.status, found.scale, found.label) == ("exact", "probability", label)
            assert found.total == pytest.approx(answer["probabilities"][label], abs=1e-9)
            total = found.base + sum(each.attribution for each in found.fields)
            assert total == pytest.approx(found.total, abs=1e-12)
            assert found.additivity_error < 1e-12
            assert found.fields[0].field == "age"
            assert {each.field for each in found.fields} == {"age", "hours", "work"}


def test_attributions_of_the_two_labels_are_opposites(forest: tuple[Project, list[str]]) -> None:
    project, ids = forest
    no, yes = (attribute(project, each) for each in ids)
    assert no.base == pytest.approx(1 - yes.base)


@pytest.mark.parametrize(
    "model", [LogisticRegression(max_iter=1000), RandomForestClassifier(5, random_state=0)]
)
def test_asked_again_it_gives_the_same_bytes(tmp_path: Path, model: object) -> None:
    train = classified()
    project, ids = serve_two_rows(tmp_path, fitted(model, train), train)
    found = [attribute(project, ids[0], budget=400) for _ in range(2)]
    assert msgspec.json.encode(found[0]) == msgspec.json.encode(found[1])


def test_other_models_are_estimated_and_say_so(tmp_path: Path) -> None:
    train = classified()
    project, ids = serve_two_rows(tmp_path, fitted(LogisticRegression(max_iter=1000), train), train)
    found = attribute(project, ids[1], budget=3000)
    assert (found.status, found.scale, found.label) == ("estimated", "probability", "yes")
    assert found.background_rows == 200
    assert 0 < found.model_rows <= 3000
    assert found.seed is not None
    assert found.additivity_error < 1e-9
    assert all(each.standard_error is not None for each in found.fields)


def test_the_smallest_budget_gives_errors_too(tmp_path: Path) -> None:
    train = classified()
    project, ids = serve_two_rows(tmp_path, fitted(LogisticRegression(max_iter=1000), train), train)
    found = attribute(project, ids[0], budget=1)
    assert found.model_rows == 2 * 2 * (3 + 1)  # two orders of three fields, both directions
    assert all(math.isfinite(each.standard_error or 0.0) for each in found.fields)


def test_a_regression_is_explained_in_its_own_unit(tmp_path: Path) -> None:
    train = people().with_columns(y=pl.col("age") * 3.0)
    project, ids = serve_two_rows(
        tmp_path, fitted(RandomForestRegressor(5, random_state=0), train), train
    )
    found = attribute(project, ids[1])
    with cl.open(project.root) as store:
        value = msgspec.json.decode(store.predictions.get(ids[1]).answer)["value"]
    assert (found.label, found.scale) == (None, "value")
    assert found.total == pytest.approx(value)


def test_of_several_labels_the_answered_one_is_explained(tmp_path: Path) -> None:
    grade = pl.when(pl.col("age") > 60).then(pl.lit("old"))
    grade = grade.when(pl.col("age") > 30).then(pl.lit("mid")).otherwise(pl.lit("young"))
    train = people().with_columns(y=grade)
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    project, ids = serve_two_rows(tmp_path, model, train)
    for identifier, label in zip(ids, ("young", "old"), strict=True):
        found = attribute(project, identifier)
        with cl.open(project.root) as store:
            answer = msgspec.json.decode(store.predictions.get(identifier).answer)
        assert found.label == answer["label"] == label
        assert found.total == pytest.approx(answer["probabilities"][label], abs=1e-9)


def test_labels_that_are_booleans_are_explained(tmp_path: Path) -> None:
    train = classified(bool)
    project, ids = serve_two_rows(
        tmp_path, fitted(RandomForestClassifier(5, random_state=0), train), train
    )
    assert attribute(project, ids[1]).label is True


def test_the_arm_that_answered_is_explained(tmp_path: Path) -> None:
    train = classified()
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    graph = "graph:\n  route: {kind: weights, weights: {a: 0.5, b: 0.5}}\n  arms: {a: m@1, b: m@1}"
    project, ids = serve_two_rows(tmp_path, model, train, graph)
    assert attribute(project, ids[0]).model == "m@1"


def test_a_shadow_beside_the_model_changes_nothing(tmp_path: Path) -> None:
    train = classified()
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    project, ids = serve_two_rows(tmp_path, model, train, "model: m@1\nshadow: [m@1]")
    assert attribute(project, ids[0]).status == "exact"


def test_an_unknown_prediction_and_a_bad_budget_are_refused(
    forest: tuple[Project, list[str]],
) -> None:
    project, ids = forest
    with pytest.raises(NotFound):
        attribute(project, "01a1fc0f-0000-7000-8000-000000000000")
    with pytest.raises(InvalidInput, match="0"):
        attribute(project, ids[0], budget=0)


def test_the_command_prints_each_field_and_its_share(
    forest: tuple[Project, list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project, ids = forest
    monkeypatch.chdir(project.root)
    assert status(["explain", ids[0]]) == 0
    printed = capsys.readouterr().out
    assert "probability of no" in printed
    assert "Exact Shapley values" in printed
    for name in ("age", "hours", "work"):
        assert name in printed
    assert status(["explain", ids[0], "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=AttributionExplanation)
    assert found.prediction == ids[0]


def test_an_estimate_is_printed_with_its_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = classified()
    project, ids = serve_two_rows(tmp_path, fitted(LogisticRegression(max_iter=1000), train), train)
    command.show(attribute(project, ids[0], budget=400))
    printed = capsys.readouterr().out
    assert "±" in printed
    assert "Estimated Shapley values" in printed
