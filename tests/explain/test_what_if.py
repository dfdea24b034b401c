"""What the model answers if one field of a row had another value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from explained import ROWS, classified, fitted, people, serve_two_rows
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression

from clewline.cli.explain import show
from clewline.errors import InvalidInput, NotSupported
from clewline.explain.explain_prediction import explain_prediction
from clewline.explain.explained_row import ExplainedRow
from clewline.explain.explainer import Explainer
from clewline.explain.logged_rows import LoggedRows
from clewline.explain.what_if import WhatIfExplainer, WhatIfExplanation, WhatIfOptions
from clewline.project import Project
from clewline.testing.explainer import ExplainerContract

MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(10, max_depth=5, random_state=0),
    "boosted": lambda: LGBMClassifier(n_estimators=10, min_child_samples=5, verbose=-1),
    "several labels": lambda: LGBMClassifier(n_estimators=5, min_child_samples=5, verbose=-1),
    "regression forest": lambda: RandomForestRegressor(10, max_depth=5, random_state=0),
    "poisson": lambda: LGBMRegressor(
        objective="poisson", n_estimators=10, min_child_samples=5, verbose=-1
    ),
    "linear": lambda: LogisticRegression(),
}


def table(name: str) -> pl.DataFrame:
    if name == "several labels":
        older = pl.when(pl.col("age") > 60).then(pl.lit("c")).otherwise(pl.lit("b"))
        return people().with_columns(
            y=pl.when(pl.col("age") > 35).then(older).otherwise(pl.lit("a"))
        )
    if name in ("regression forest", "poisson"):
        return people().with_columns(y=pl.col("age") * 2.0 + pl.col("hours"))
    return classified()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Project, list[str]]]:
    made: dict[str, tuple[Project, list[str]]] = {}

    def serve(name: str) -> tuple[Project, list[str]]:
        if name not in made:
            train = table(name)
            model = fitted(MODELS[name](), train)
            made[name] = serve_two_rows(tmp_path_factory.mktemp("served"), model, train)
        return made[name]

    return serve


def explain(
    served: Callable[[str], tuple[Project, list[str]]], name: str, at: int = 0, **options: Any
) -> WhatIfExplanation:
    project, ids = served(name)
    found = explain_prediction(project, ids[at], "what-if", options).explanation
    assert isinstance(found, WhatIfExplanation)
    return found


class TestContract(ExplainerContract):
    @pytest.fixture(params=["forest", "linear"])
    def make_row(
        self,
        request: pytest.FixtureRequest,
        served: Callable[[str], tuple[Project, list[str]]],
    ) -> Callable[[], ExplainedRow]:
        project, ids = served(request.param)
        return lambda: LoggedRows(project).read(ids[0])

    @pytest.fixture
    def explainer(self) -> Explainer[Any]:
        return WhatIfExplainer()

    @pytest.fixture
    def given(self) -> dict[str, Any]:
        return {"field": "age"}


@pytest.mark.parametrize("name", [name for name in MODELS if name != "linear"])
@pytest.mark.parametrize("field", ["age", "hours", "work"])
def test_the_curve_of_trees_is_what_the_model_itself_answers(
    served: Callable[[str], tuple[Project, list[str]]], name: str, field: str
) -> None:
    for at in (0, 1):  # the second row has an unknown level
        found = explain(served, name, at, field=field, points=60)
        assert found.status == "exact"
        assert found.difference is not None
        assert found.difference < 1e-6 * max(abs(found.highest.score), 1)
        scores = [point.score for point in found.points]
        tolerance = 1e-6 * max(abs(found.highest.score), 1)
        assert found.lowest.score <= min(scores) + tolerance
        assert found.highest.score >= max(scores) - tolerance
        assert ROWS[at][field] in [point.value for point in found.points]


def test_the_ends_of_a_piece_are_where_the_score_changes(
    served: Callable[[str], tuple[Project, list[str]]],
) -> None:
    project, ids = served("forest")
    row = LoggedRows(project).read(ids[0])
    found = WhatIfExplainer().explain(row, WhatIfOptions(field="hours"))
    assert found.steps is not None
    assert found.steps > 5

    def score(hours: float) -> float:
        columns = row.columns
        numbers = columns.numbers.copy()
        numbers[0, [f.name for f in row.signature.numeric].index("hours")] = hours
        answers = row.model.predict(type(columns)(numbers, columns.texts, columns.tensors))
        assert answers.probabilities is not None
        assert row.label_place is not None
        return float(answers.probabilities[0, row.label_place])

    changed = 0
    for point in found.points:
        for end, beyond in ((point.at_most, np.inf), (point.above, -np.inf)):
            if end is not None:
                inside = end if beyond > 0 else np.nextafter(end, np.inf)
                outside = np.nextafter(end, np.inf) if beyond > 0 else end
                assert score(inside) == pytest.approx(point.score, abs=1e-9)
                changed += abs(score(outside) - point.score) > 1e-9
    assert changed > 5


def test_lowest_and_highest_are_over_values_that_the_field_can_have(
    served: Callable[[str], tuple[Project, list[str]]],
) -> None:
    found = explain(served, "forest", field="age", points=2)
    assert isinstance(found.lowest.value, int)
    assert isinstance(found.highest.value, int)
    every = explain(served, "forest", field="age", points=100)
    scores = {point.value: point.score for point in every.points}
    assert found.lowest.score == pytest.approx(min(scores.values()))
    assert found.highest.score == pytest.approx(max(scores.values()))


def test_other_models_are_asked_about_values_of_training_rows(
    served: Callable[[str], tuple[Project, list[str]]],
) -> None:
    found = explain(served, "linear", field="age", points=10)
    assert (found.status, found.difference, found.steps) == ("asked", None, None)
    assert found.model_rows == len(found.points) <= 10
    scores = [point.score for point in found.points]
    assert scores in (sorted(scores), sorted(scores, reverse=True))
    assert found.points[0].above is None


def test_a_field_that_no_tree_reads_has_a_flat_curve(tmp_path: Path) -> None:
    train = classified().with_columns(constant=pl.lit(3))
    model = RandomForestClassifier(5, max_depth=3, random_state=0)
    project, ids = serve_two_rows(tmp_path, fitted(model, train), train, extra={"constant": 3})
    found = explain_prediction(project, ids[0], "what-if", {"field": "constant"}).explanation
    assert isinstance(found, WhatIfExplanation)
    assert (found.steps, len(found.points)) == (1, 1)
    assert found.lowest.score == found.highest.score == found.points[0].score
    assert found.difference == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("field", "error", "message"),
    [
        ("", InvalidInput, "one of age, hours, work"),
        ("agee", InvalidInput, "Did you mean 'age'"),
    ],
)
def test_a_field_must_be_named(
    served: Callable[[str], tuple[Project, list[str]]],
    field: str,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        explain(served, "forest", field=field)


def test_arrays_have_no_curve(served: Callable[[str], tuple[Project, list[str]]]) -> None:
    project, ids = served("linear")
    row = LoggedRows(project).read(ids[0])
    fields = tuple(
        msgspec.structs.replace(field, kind="tensor", dtype="float32", shape=(2,))
        for field in row.signature.fields
    )
    row.model.signature = msgspec.structs.replace(row.signature, fields=fields)
    with pytest.raises(NotSupported, match="holds arrays"):
        WhatIfExplainer().explain(row, WhatIfOptions(field="age"))


def test_the_command_draws_the_curve(
    served: Callable[[str], tuple[Project, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    show(explain(served, "forest", field="age", points=10))
    text = capsys.readouterr().out
    assert "followed    probability of no, if age were another" in text
    assert "\n→ 25" in text
    assert " yes\n" in text  # where the answer is another
    assert "pieces: from " in text
    show(explain(served, "linear", field="work"))
    assert "The model was asked about 2 values." in capsys.readouterr().out
