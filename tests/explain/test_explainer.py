"""Explainers: ours pass the contract, options have one door, and the best one is the default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest

from clewline.errors import InvalidInput, ModelFailed, NotSupported
from clewline.explain import explainer as explainers
from clewline.explain.anchors import AnchorExplainer
from clewline.explain.attributions import AttributionExplainer, AttributionOptions
from clewline.explain.counterfactuals import CounterfactualExplainer, CounterfactualOptions
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow
from clewline.explain.explainer import Explainer, best_explainer
from clewline.explainer_kinds import explainer_of, kinds, read_options
from clewline.model.families.sample_file import TrainingSample
from clewline.model.runtime.outputs import FunctionPredictor, Outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.testing.explainer import ExplainerContract

SIGNATURE = Signature(
    fields=(
        Field(name="age", kind="integer"),
        Field(name="work", kind="category", nullable=True, levels=("own", "state")),
    ),
    output=Output(name="rich", task="binary", labels=("no", "yes")),
)


def answer(columns: Columns) -> Outputs:
    """Answer by a formula of both fields."""
    own = np.equal(columns.texts[:, 0], "own")
    yes = 1 / (1 + np.exp(-(columns.numbers[:, 0] - 40) / 10 - own))
    return Outputs(np.greater(yes, 0.5).astype(np.int64), np.stack([1 - yes, yes], axis=1))


def row(predict: Callable[[Columns], Outputs] = answer) -> ExplainedRow:
    """Return a row of a model that nobody has asked yet."""
    random = np.random.default_rng(0)
    texts = np.array(["own", "state", None], dtype=object)[random.integers(0, 3, (50, 1))]
    background = Columns(random.integers(18, 80, (50, 1)).astype(np.float64), texts)
    return ExplainedRow(
        model=ExplainedModel(
            "m@1",
            SIGNATURE,
            lambda: FunctionPredictor(predict),
            lambda: TrainingSample(background, truth=None, answers=None, of_rows=50),
        ),
        columns=Columns(np.array([[30.0]]), np.array([["state"]], dtype=object)),
        values={"age": 30, "work": "state"},
        answer={"label": "no"},
        seed=7,
    )


class Ours(ExplainerContract):
    @pytest.fixture
    def make_row(self) -> Callable[[], ExplainedRow]:
        return row

    def test_it_is_installed_under_its_kind(self, explainer: Explainer[Any]) -> None:
        assert type(explainer_of(explainer.kind)) is type(explainer)


class TestAnchors(Ours):
    @pytest.fixture
    def explainer(self) -> Explainer[Any]:
        return AnchorExplainer()

    @pytest.fixture
    def given(self) -> dict[str, Any]:
        return {"precision": 0.9, "budget": 5000}


class TestAttributions(Ours):
    @pytest.fixture
    def explainer(self) -> Explainer[Any]:
        return AttributionExplainer()

    @pytest.fixture
    def given(self) -> dict[str, Any]:
        return {"budget": 600}


class TestCounterfactuals(Ours):
    @pytest.fixture
    def explainer(self) -> Explainer[Any]:
        return CounterfactualExplainer()

    @pytest.fixture
    def given(self) -> dict[str, Any]:
        return {"to": "yes", "up": ["age"]}


def test_every_kind_that_is_installed_states_what_it_takes() -> None:
    for kind in kinds():
        found = explainer_of(kind)
        assert found.kind == kind
        info = msgspec.inspect.type_info(found.options)
        assert isinstance(info, msgspec.inspect.StructType)
        for field in info.fields:
            hint = found.options.__annotations__[field.name]
            assert "description=" in hint, f"{kind}: {field.name}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"budget": "50"}, CounterfactualOptions(budget=50)),
        ({"keep": "age, work"}, CounterfactualOptions(keep=frozenset({"age", "work"}))),
        ({"keep": '["a,b"]'}, CounterfactualOptions(keep=frozenset({"a,b"}))),
        ({"ranges": '{"age": [null, 60]}'}, CounterfactualOptions(ranges={"age": (None, 60.0)})),
        ({"to": "1"}, CounterfactualOptions(to="1")),
        ({"to": 1}, CounterfactualOptions(to=1)),
    ],
)
def test_options_are_read_from_words_and_from_values_alike(
    given: dict[str, Any], expected: CounterfactualOptions
) -> None:
    assert read_options(CounterfactualExplainer(), given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bugdet": 1}, "Did you mean 'budget'"),
        ({"keep": "age"}, "It is an option of the kind counterfactuals"),
        ({"budget": 0}, "'budget' of the explainer 'attributions' is 0: expected `int` >= 1"),
        ({"budget": "many"}, "is 'many': expected `int`"),
        ({"budget": True}, "expected `int`"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_options(AttributionExplainer(), given)
    assert message in str(caught.value)


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(NotSupported, match="Did you mean 'attributions'"):
        explainer_of("attribution")


def test_the_explainer_that_suits_a_model_best_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert best_explainer(row().model).kind == "attributions"

    class Options(explainers.ExplainerOptions, frozen=True, kw_only=True):
        size: Annotated[int, msgspec.Meta(description="of what is shown")] = 1

    class Better(AttributionExplainer):
        kind, options = "better", Options  # type: ignore[assignment]

        def preference(self, model: ExplainedModel) -> int:
            return 3

    class Unable(Better):
        def preference(self, model: ExplainedModel) -> int:
            return 0

    kinds: dict[str, Any] = {"attributions": AttributionExplainer(), "better": Better()}
    monkeypatch.setattr(explainers, "kinds", lambda: tuple(kinds))
    monkeypatch.setattr(explainers, "explainer_of", kinds.__getitem__)
    assert best_explainer(row().model).kind == "better"
    kinds.clear()
    kinds["unable"] = Unable()
    with pytest.raises(NotSupported, match="No installed explainer"):
        best_explainer(row().model)


def test_a_model_that_raises_or_answers_nonsense_fails_with_its_name() -> None:
    def raises(columns: Columns) -> Outputs:
        raise KeyError("age")

    def nonsense(columns: Columns) -> Outputs:
        return Outputs(np.zeros(len(columns), np.int64), np.full((len(columns), 2), np.nan))

    with pytest.raises(ModelFailed, match="m@1 raised KeyError on a changed row: 'age'"):
        AttributionExplainer().explain(row(raises), AttributionOptions())
    with pytest.raises(ModelFailed, match="not finite"):
        AttributionExplainer().explain(row(nonsense), AttributionOptions())


def test_a_model_that_always_answers_the_same_is_explained() -> None:
    def same(columns: Columns) -> Outputs:
        return Outputs(np.zeros(len(columns), np.int64), np.tile([0.9, 0.1], (len(columns), 1)))

    found = AttributionExplainer().explain(row(same), AttributionOptions(budget=100))
    assert [each.attribution for each in found.fields] == [0.0, 0.0]
    none = CounterfactualExplainer().explain(row(same), CounterfactualOptions())
    assert (none.status, none.counterfactuals) == ("none", [])


def test_a_slow_model_is_noticed_at_its_first_row() -> None:
    seen: list[int] = []
    model = row().model
    model.watch = lambda rows, seconds: seen.append(rows)
    model.predict(take_rows(model.background, slice(0, 20)))
    assert seen == [1, 20]
