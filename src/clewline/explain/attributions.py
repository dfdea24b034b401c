"""Attributions of a logged prediction: how much each field moved the answer."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.explain.explained_row import ExplainedRow, Explanation, read_explained_row
from clewline.explain.leaf_boxes import build_leaf_boxes
from clewline.explain.shapley_values import (
    ShapleyValues,
    sampled_shapley_values,
    tree_shapley_values,
)
from clewline.model.compile.trees import Link, ServedTrees
from clewline.model.runtime.outputs import Outputs
from clewline.model_families import family_named
from clewline.project import Project
from clewline.signature.columns import Columns
from clewline.store.ids import id_bytes

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
BACKGROUND_SAMPLE = "training rows in the package"
BUDGET = 20_000
"""Rows that the model answers for an estimate: standard errors of about 1 % of the spread."""


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
    background: str  # where unknown fields come from
    background_rows: int
    model_rows: int
    seed: int | None
    additivity_error: float  # of base + attributions, beside total


def attribute_prediction(
    project: Project, prediction: str, *, budget: int = BUDGET
) -> AttributionExplanation:
    """
    Explain a logged prediction: how much each field moved the answer.

    Trees on raw fields are attributed exactly; of other models the values are estimated. The
    same prediction gives the same explanation, bit for bit: the seed comes from its id.

    Args:
        project: Holds the log, the catalog and the packages.
        prediction: Its id.
        budget: Maximum number of rows that the model answers for an estimate.

    Raises:
        InvalidInput: The budget is below 1.
        NotFound: The prediction or a package does not exist.
        IntegrityError: The logged batch or a package differs from what was recorded.
        NotSupported: The answer is no label or number of one model.
    """
    if budget < 1:
        raise InvalidInput(f"The budget must be at least 1 model row (got {budget}).")
    row = read_explained_row(project, prediction)
    labels, place, fields = row.signature.output.labels, row.label_place, row.signature.fields
    family = family_named(row.package.manifest.runtime)
    trees = family.served_trees(row.package.files, row.signature)
    scale: Scale = "value" if place is None else "probability"
    seed: int | None = None
    if trees is not None:
        found, scale = _attribute_trees(row, trees)
    else:
        seed = int.from_bytes(id_bytes(row.logged.id)[8:], "big")
        found = _estimate(row, family, budget, seed)
    errors = [None] * len(fields) if found.errors is None else found.errors.tolist()
    order = np.argsort(-np.abs(found.values), kind="stable").tolist()
    return AttributionExplanation(
        **row.facts,
        status="exact" if trees is not None else "estimated",
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
        background=TRAINING_SHARES if trees is not None else BACKGROUND_SAMPLE,
        background_rows=0 if trees is not None else len(row.background),
        model_rows=found.model_rows,
        seed=seed,
        additivity_error=abs(found.base + float(found.values.sum()) - found.total),
    )


def _attribute_trees(row: ExplainedRow, trees: ServedTrees) -> tuple[ShapleyValues, Scale]:
    """Attribute the answer to each field, on the scale on which the trees add up."""
    ensemble, label = trees.ensemble, row.label_place
    target = 0 if label is None else ensemble.classes[label]
    # One sum is of the second class; the first has the rest of the probability, or the negative.
    is_rest = label is not None and ensemble.targets == 1 and target == 0
    boxes = build_leaf_boxes(trees, row.signature)
    found = tree_shapley_values(boxes, row.columns, 0 if ensemble.targets == 1 else target)
    factor = {"mean": 1 / ensemble.count, "half sigmoid": 2.0}.get(ensemble.link, 1.0)
    rest = 0.0
    if is_rest:
        factor, rest = -factor, 1.0 if ensemble.link == "mean" else 0.0
    base, total = rest + factor * found.base, rest + factor * found.total
    scale = "value" if label is None and ensemble.link == "mean" else SCALES[ensemble.link]
    known = dict(zip(boxes.players, (factor * found.values).tolist(), strict=True))
    values = np.array([known.get(field.name, 0.0) for field in row.signature.fields])
    return ShapleyValues(base, values, total), scale


def _estimate(row: ExplainedRow, family: Any, budget: int, seed: int) -> ShapleyValues:
    """Ask the model for the number that is explained: a probability, or a value."""
    place = row.label_place
    predictor = family.load(row.package.files, row.signature)

    def answer(columns: Columns) -> NDArray[np.float64]:
        found: Outputs = predictor.predict(columns)
        if place is None:
            assert found.values is not None, "a regression answers with values"
            return found.values
        if found.probabilities is not None:
            return found.probabilities[:, place]
        assert found.choices is not None, "a classifier answers with choices"
        return np.equal(found.choices, place).astype(np.float64)

    try:
        return sampled_shapley_values(
            answer, row.columns, row.background, row.signature, budget=budget, seed=seed
        )
    finally:
        predictor.close()
