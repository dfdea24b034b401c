"""Attributions: how much each field of a row moved the answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import ExplainerOptions
from clewline.explain.leaf_boxes import LeafBoxes
from clewline.explain.shapley_values import (
    ShapleyValues,
    TreeShapleyValues,
    sampled_shapley_values,
)
from clewline.model.compile.trees import Link
from clewline.signature.columns import Columns

Scale = Literal["probability", "log-odds", "score", "logarithm", "value"]
SCALES: dict[Link, Scale] = {
    "mean": "probability",
    "identity": "value",
    "exp": "logarithm",
    "sigmoid": "log-odds",
    "half sigmoid": "log-odds",
    "softmax": "score",
}
TRAINING_SHARES = "the shares of training rows on each branch"


class AttributionOptions(ExplainerOptions, frozen=True, kw_only=True):
    """Options of attributions."""

    budget: Annotated[
        int, msgspec.Meta(ge=1, description="rows that the model answers for an estimate")
    ] = 20_000  # standard errors of about 1 % of the spread


class FieldAttribution(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How much one field moved the answer."""

    field: str
    value: Any  # of the row
    attribution: float
    standard_error: float | None = None  # None if it is exact


class AttributionExplanation(Explanation, frozen=True, kw_only=True):
    """`base` + all attributions = `total`."""

    kind: str = "attributions"
    status: Literal["exact", "estimated"]
    label: Any | None  # the answer that is explained; None of a regression
    scale: Scale
    base: float  # the expected answer, if no field is known
    total: float  # the answer to this row
    fields: list[FieldAttribution]  # those that moved it most first
    additivity_error: float  # of base + attributions, beside total


class AttributionExplainer:
    """Says how much each field moved the answer: exactly of trees, else by an estimate."""

    kind = "attributions"
    options = AttributionOptions
    explanation = AttributionExplanation

    def preference(self, model: ExplainedModel) -> int:
        """Suit trees best; of a single field there is nothing to compare."""
        if model.trees is not None:
            return 3
        return 1 if len(model.signature.fields) == 1 else 2

    def explain(self, row: ExplainedRow, options: AttributionOptions) -> AttributionExplanation:
        """
        Compute how much each field moved the answer.

        Raises:
            ModelFailed: The model raised on a mixture of rows.
        """
        labels, place, fields = row.signature.output.labels, row.label_place, row.signature.fields
        boxes = row.model.boxes
        scale: Scale = "value" if place is None else "probability"
        if boxes is not None:
            found, scale = _attribute_trees(row, boxes)
        else:
            found = _estimate(row, options.budget)
        errors = [None] * len(fields) if found.errors is None else found.errors.tolist()
        order = np.argsort(-np.abs(found.values), kind="stable").tolist()
        return AttributionExplanation(
            **row.facts(options, None if boxes is None else TRAINING_SHARES),
            status="estimated" if boxes is None else "exact",
            label=None if labels is None or place is None else labels[place],
            scale=scale,
            base=found.base,
            total=found.total,
            fields=[
                FieldAttribution(
                    field=fields[at].name,
                    value=row.values.get(fields[at].name),
                    attribution=float(found.values[at]),
                    standard_error=errors[at],
                )
                for at in order
            ],
            model_rows=found.model_rows,
            seed=row.seed if boxes is None else None,
            additivity_error=abs(found.base + float(found.values.sum()) - found.total),
        )


def _attribute_trees(row: ExplainedRow, boxes: LeafBoxes) -> tuple[ShapleyValues, Scale]:
    """Attribute the answer to each field, on the scale on which the trees add up."""
    ensemble, label = boxes.trees.ensemble, row.label_place
    target = 0 if label is None else ensemble.classes[label]
    # One sum is of the second class; the first has the rest of the probability, or the negative.
    is_rest = label is not None and ensemble.targets == 1 and target == 0
    target = 0 if ensemble.targets == 1 else target
    key = f"attributions of {target}"
    found = row.model.remember(key, lambda: TreeShapleyValues(boxes, target)).of(row.columns)
    factor = {"mean": 1 / ensemble.count, "half sigmoid": 2.0}.get(ensemble.link, 1.0)
    rest = 0.0
    if is_rest:
        factor, rest = -factor, 1.0 if ensemble.link == "mean" else 0.0
    base, total = rest + factor * found.base, rest + factor * found.total
    scale = "value" if label is None and ensemble.link == "mean" else SCALES[ensemble.link]
    known = dict(zip(boxes.players, (factor * found.values).tolist(), strict=True))
    values = np.array([known.get(field.name, 0.0) for field in row.signature.fields])
    return ShapleyValues(base, values, total), scale


def _estimate(row: ExplainedRow, budget: int) -> ShapleyValues:
    """Ask the model for the number that is explained: a probability, or a value."""
    place = row.label_place

    def answer(columns: Columns) -> NDArray[np.float64]:
        found = row.model.predict(columns)
        if place is None:
            assert found.values is not None, "a regression answers with values"
            return found.values
        if found.probabilities is not None:
            return found.probabilities[:, place]
        assert found.choices is not None, "a classifier answers with choices"
        return np.equal(found.choices, place).astype(np.float64)

    return sampled_shapley_values(
        answer, row.columns, row.background, row.signature, budget=budget, seed=row.seed
    )
