"""A prediction of a graph is explained: by the model behind its nodes, or as a whole."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from explained import (
    ROWS,
    answer_rows,
    attribute,
    classified,
    find_changes,
    fitted,
    people,
    row_of,
    serve_two_rows,
)
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

from clewline.cli.main import status
from clewline.errors import IntegrityError
from clewline.explain import logged_graph
from clewline.project import Project
from clewline.serve.log.reader import get_prediction

NODES = """\
import polars as pl


def older(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col("age") + 10)
"""

MEAN = "graph:\n  combine: mean\n  branches: {a: m@1, b: {transform: nodes.py:older, model: m@1}}"


def serve(root: Path, graph: str) -> tuple[Project, list[str]]:
    (root / "nodes.py").write_text(NODES)
    train = classified()
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    return serve_two_rows(root, model, train, graph)


def probability(project: Project, prediction: str) -> float:
    answer = msgspec.json.decode(get_prediction(project.log, prediction).answer)
    found: float = answer["probabilities"][answer["label"]]
    return found


def test_behind_a_transform_the_models_own_row_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, ids = serve(tmp_path, "graph: {transform: nodes.py:older, model: m@1}")
    (tmp_path / "nodes.py").write_text("raise SystemExit('the revision has its own code')\n")
    found = attribute(project, ids[0])
    assert (found.status, found.scope, found.nodes) == ("exact", "model", ["older"])
    assert found.model == "m@1"
    assert found.total == pytest.approx(probability(project, ids[0]), abs=1e-9)
    values = {each.field: each.value for each in found.fields}
    assert values == {"age": 35, "hours": 40.0, "work": "own"}
    change = find_changes(project, ids[0], to="yes").counterfactuals[0].changes[0]
    assert (change.field, change.value) == ("age", 35)
    monkeypatch.chdir(project.root)
    assert status(["explain", ids[0]]) == 0
    assert "by m@1 in e#1 after older" in capsys.readouterr().out


def test_the_arm_that_answered_is_explained_with_its_transform(tmp_path: Path) -> None:
    graph = (
        "graph:\n  route: {kind: weights, weights: {a: 0.5, b: 0.5}}\n"
        "  arms: {a: {transform: nodes.py:older, model: m@1}, b: m@1}"
    )
    project, ids = serve(tmp_path, graph)
    for identifier, age in zip(ids, (25, 71), strict=True):
        found = attribute(project, identifier)
        logged = get_prediction(project.log, identifier)
        assert found.arm == logged.route_path.arm
        assert found.nodes == (["a/older"] if found.arm == "a" else [])
        value = next(each.value for each in found.fields if each.field == "age")
        assert value == (age + 10 if found.arm == "a" else age)
        assert found.total == pytest.approx(probability(project, identifier), abs=1e-9)


def test_what_several_models_answered_is_explained_as_a_whole(tmp_path: Path) -> None:
    project, ids = serve(tmp_path, MEAN)
    found = attribute(project, ids[0], budget=800)
    assert (found.status, found.scope, found.model) == ("estimated", "graph", "m@1+m@1")
    assert set(found.nodes) >= {"b/older"}
    assert found.total == pytest.approx(probability(project, ids[0]), abs=1e-9)
    assert found.additivity_error < 1e-9
    assert found.background == "background rows of the endpoint"
    assert attribute(project, ids[0], budget=800) == found
    changes = find_changes(project, ids[0], to="yes")
    assert changes.status == "found"
    row = row_of(project, ids[0])
    assert row.values["age"] == 25  # as it came


def test_a_transform_that_answers_otherwise_now_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, ids = serve(tmp_path, "graph: {transform: nodes.py:older, model: m@1}")
    answer = logged_graph._Recording.predict

    def other(self: logged_graph._Recording, columns: object) -> object:
        found = answer(self, columns)  # type: ignore[arg-type]
        return type(found)(found.choices, found.probabilities * 0.5)

    monkeypatch.setattr(logged_graph._Recording, "predict", other)
    with pytest.raises(IntegrityError, match=f"`clewline replay {ids[0]}`"):
        attribute(project, ids[0])


def test_a_regression_of_several_models_is_explained(tmp_path: Path) -> None:
    train = people().with_columns(y=people()["age"] * 3.0)
    graph = "graph: {combine: mean, branches: {a: m@1, b: m@1}}"
    project, ids = serve_two_rows(tmp_path, fitted(LinearRegression(), train), train, graph)
    found = attribute(project, ids[1], budget=400)
    assert (found.scope, found.scale) == ("graph", "value")
    assert found.total == pytest.approx(71 * 3.0)


@pytest.mark.parametrize(
    "graph", ["model: m@1", "graph: {transform: nodes.py:older, model: m@1}", MEAN]
)
def test_a_row_that_came_as_csv_is_explained_as_the_same_row_in_json(
    tmp_path: Path, graph: str
) -> None:
    project, ids = serve(tmp_path, graph)
    (as_csv, _) = answer_rows(project, "e", ROWS, as_csv=True)
    found, expected = (attribute(project, each, budget=400) for each in (as_csv, ids[0]))
    assert found.total == expected.total
    assert {each.field: each.value for each in found.fields} == {
        each.field: each.value for each in expected.fields
    }
