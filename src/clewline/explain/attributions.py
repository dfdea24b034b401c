"""Attributions of a logged prediction: how much each field moved the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.explain.explained_row import ExplainedRow, read_explained_row
from clewline.explain.leaf_boxes import LeafBoxes, build_leaf_boxes
from clewline.explain.shapley_values import (
    ShapleyValues,
    sampled_shapley_values,
    tree_shapley_values,
)
from clewline.model.compile.trees import Link
from clewline.model.runtime.outputs import Outputs
from clewline.model_families import family_named
from clewline.project import Project
from clewline.signature.columns import Columns
from clewline.store.digest import Digest
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
BUDGET = 20_000
"""Rows that the model answers for an estimate: standard errors of about 1 % of the spread."""


class FieldAttribution(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How much one field moved the answer."""

    field: str
    value: Any  # of the row
    attribution: float
    standard_error: float | None = None  # None if it is exact


class AttributionExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """`base` + all attributions = `total`."""

    prediction: str
    model: str  # income@3
    package: Digest
    revision: str  # income#12
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
    family = family_named(row.package.manifest.runtime)
    labels, place = row.signature.output.labels, row.label_place
    seed: int | None = None
    players = [field.name for field in row.signature.fields]
    trees = family.served_trees(row.package.files, row.signature)
    if trees is not None:
        boxes = build_leaf_boxes(trees, row.signature)
        found, scale = _attribute_trees(boxes, row)
        known = dict(zip(boxes.players, found.values.tolist(), strict=True))
        values = np.array([known.get(name, 0.0) for name in players])
        errors: list[float | None] = [None] * len(players)
        background = "the shares of training rows on each branch"
    else:
        predictor = family.load(row.package.files, row.signature)
        seed = int.from_bytes(id_bytes(row.logged.id)[8:], "big")
        try:
            found = sampled_shapley_values(
                _answered_number(predictor.predict, row),
                row.columns,
                row.background,
                row.signature,
                budget=budget,
                seed=seed,
            )
        finally:
            predictor.close()
        scale = "value" if place is None else "probability"
        values = found.values
        errors = [] if found.errors is None else found.errors.tolist()
        background = "training rows in the package"
    order = np.argsort(-np.abs(values), kind="stable").tolist()
    batch = row.logged.batch
    return AttributionExplanation(
        prediction=row.logged.id,
        model=row.package.manifest.ref,
        package=row.package.digest,
        revision=f"{batch.endpoint}#{batch.revision}",
        status="exact" if trees is not None else "estimated",
        label=None if labels is None or place is None else labels[place],
        scale=scale,
        base=found.base,
        total=found.total,
        fields=[
            FieldAttribution(
                field=players[at],
                value=row.values.get(players[at]),
                attribution=float(values[at]),
                standard_error=errors[at],
            )
            for at in order
        ],
        background=background,
        background_rows=0 if trees is not None else len(row.background),
        model_rows=found.model_rows,
        seed=seed,
        additivity_error=abs(found.base + float(values.sum()) - found.total),
    )


def _attribute_trees(boxes: LeafBoxes, row: ExplainedRow) -> tuple[ShapleyValues, Scale]:
    """Attribute the answer, on the scale on which the trees add up."""
    ensemble, label = boxes.trees.ensemble, row.label_place
    target = 0 if label is None else ensemble.classes[label]
    # One sum is of the second class; the first has the rest of the probability, or the negative.
    is_rest = label is not None and ensemble.targets == 1 and target == 0
    found = tree_shapley_values(boxes, row.columns, 0 if ensemble.targets == 1 else target)
    factor = {"mean": 1 / ensemble.count, "half sigmoid": 2.0}.get(ensemble.link, 1.0)
    rest = 0.0
    if is_rest:
        factor, rest = -factor, 1.0 if ensemble.link == "mean" else 0.0
    base, total = rest + factor * found.base, rest + factor * found.total
    scale = "value" if label is None and ensemble.link == "mean" else SCALES[ensemble.link]
    return ShapleyValues(base, factor * found.values, total), scale


def _answered_number(
    predict: Callable[[Columns], Outputs], row: ExplainedRow
) -> Callable[[Columns], NDArray[np.float64]]:
    """Return a function that answers rows with the number that is explained."""
    place = row.label_place

    def answer(columns: Columns) -> NDArray[np.float64]:
        found = predict(columns)
        if place is None:
            assert found.values is not None, "a regression answers with values"
            return found.values
        if found.probabilities is not None:
            return found.probabilities[:, place]
        assert found.choices is not None, "a classifier answers with choices"
        return np.equal(found.choices, place).astype(np.float64)

    return answer
