"""Counterfactuals of a logged prediction: after which small changes is the answer another?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput, did_you_mean
from clewline.explain.counterfactual_search import (
    ChangeLimits,
    CounterfactualRows,
    CounterfactualSearch,
    Direction,
)
from clewline.explain.explained_row import ExplainedRow, Explanation, read_explained_row
from clewline.explain.leaf_boxes import LeafBoxes, build_leaf_boxes
from clewline.model.runtime.outputs import Outputs
from clewline.model_families import family_named
from clewline.project import Project
from clewline.signature.columns import Columns
from clewline.signature.field import label_name
from clewline.signature.field_rules import value_in_kind

COUNT, BUDGET = 3, 20_000


class FieldChange(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A change of one field."""

    field: str
    value: Any  # of the row
    changed: Any
    above: Any | None = None  # of a number of trees: while it is above this, and at most
    at_most: Any | None = None  # that, the answer stays, if no other field moves; None: no end


class Counterfactual(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A changed row that the model has answered as wanted."""

    changes: list[FieldChange]
    label: Any | None = None
    probability: float | None = None  # of the label
    value: float | None = None
    distance: float  # a number counts in median absolute deviations, another level as 1


class CounterfactualExplanation(Explanation, frozen=True, kw_only=True):
    """Counterfactuals of one prediction, the nearest first."""

    kind: str = "counterfactuals"
    status: Literal["found", "none", "budget spent"]
    answer: Any  # label or value
    wanted: str
    counterfactuals: list[Counterfactual]
    keep: list[str]
    one_way: dict[str, Direction]
    background_rows: int
    model_rows: int
    budget: int


def find_prediction_changes(
    project: Project,
    prediction: str,
    *,
    to: str | None = None,
    limits: ChangeLimits | None = None,
    count: int = COUNT,
    budget: int = BUDGET,
) -> CounterfactualExplanation:
    """
    Find small changes of a logged row after which the model that answered it answers otherwise.

    Args:
        project: Holds the log, the catalog and the packages.
        prediction: Its id.
        to: The wanted label, or the range of a regression as LOW..HIGH, where one end may be
            missing; by default any other label.
        limits: Fields that must not change, or only in one direction.
        count: Maximum number of counterfactuals; each changes another set of fields.
        budget: Maximum number of rows that the model answers, besides the background.

    Raises:
        InvalidInput: There is no such label, range or field, or a number is below 1.
        NotFound: The prediction or a package does not exist.
        IntegrityError: The logged batch or a package differs from what was recorded.
        NotSupported: The answer is no label or number of one model.
    """
    for name, number in (("budget", budget), ("count", count)):
        if number < 1:
            raise InvalidInput(f"The {name} must be at least 1 (got {number}).")
    limits = limits or ChangeLimits()
    row = read_explained_row(project, prediction)
    _check_fields(row, limits)
    wanted = _WantedAnswer.read(row, to)
    family = family_named(row.package.manifest.runtime)
    trees = family.served_trees(row.package.files, row.signature)
    boxes = None if trees is None else build_leaf_boxes(trees, row.signature)
    predictor = family.load(row.package.files, row.signature)
    try:
        answers = None if row.sample is None else row.sample.answers
        search = CounterfactualSearch(
            predictor.predict, row.background, row.signature, boxes, answers
        )
        found = search.find(row.columns, wanted.holds, limits=limits, count=count, budget=budget)
        results = _describe(row, found, boxes, predictor.predict)
    finally:
        predictor.close()
    answer = "value" if row.label_place is None else "label"
    none: Literal["none", "budget spent"] = "budget spent" if found.is_budget_spent else "none"
    return CounterfactualExplanation(
        **row.facts,
        status="found" if results else none,
        answer=msgspec.json.decode(row.logged.answer)[answer],
        wanted=wanted.text,
        counterfactuals=results,
        keep=sorted(limits.keep),
        one_way=dict(limits.one_way),
        background_rows=len(row.background),
        model_rows=(
            (len(row.background) if answers is None else 0) + found.model_rows + len(results)
        ),
        budget=budget,
    )


@dataclass(frozen=True, slots=True)
class _WantedAnswer:
    text: str
    holds: Callable[[Outputs], NDArray[np.bool_]]

    @classmethod
    def read(cls, row: ExplainedRow, to: str | None) -> _WantedAnswer:
        labels, place = row.signature.output.labels, row.label_place
        if labels is None or place is None:
            return cls._range(row, to)
        names = [label_name(label) for label in labels]
        if to is None:
            return cls(f"not {names[place]}", lambda found: np.not_equal(_choices(found), place))
        if to not in names:
            known = ", ".join(names)
            hint = did_you_mean(to, names) or f"The labels are {known}."
            raise InvalidInput(f"{row.package.manifest.ref} has no label {to!r}.", hint)
        other = names.index(to)
        if other == place:
            raise InvalidInput(
                f"The answer is {to} already.", "Name another label, or leave --to out."
            )
        return cls(to, lambda found: np.equal(_choices(found), other))

    @classmethod
    def _range(cls, row: ExplainedRow, to: str | None) -> _WantedAnswer:
        low, dots, high = (to or "").partition("..")
        try:
            ends = float(low or "-inf"), float(high or "inf")
        except ValueError:
            ends = math.nan, math.nan
        if not dots or not ends[0] <= ends[1] or ends == (-math.inf, math.inf):
            raise InvalidInput(
                f"{to!r} is no range of values." if to else "No range of values is given.",
                f"{row.package.manifest.ref} answers with a number: write --to LOW..HIGH, such as "
                "--to 100..200, --to 100.. or --to ..200.",
            )
        value = msgspec.json.decode(row.logged.answer)["value"]
        if ends[0] <= value <= ends[1]:
            raise InvalidInput(f"The answer is {value:g}, which is in {to} already.")

        def holds(found: Outputs) -> NDArray[np.bool_]:
            assert found.values is not None, "a regression answers with values"
            return (ends[0] <= found.values) & (found.values <= ends[1])

        return cls(str(to), holds)


def _choices(found: Outputs) -> NDArray[np.int64]:
    assert found.choices is not None, "a classifier answers with choices"
    return found.choices


def _check_fields(row: ExplainedRow, limits: ChangeLimits) -> None:
    names = [field.name for field in row.signature.fields]
    for name in (*limits.keep, *limits.one_way, *limits.ranges):
        if name not in names:
            raise InvalidInput(
                f"{row.package.manifest.ref} has no field {name!r}.", did_you_mean(name, names)
            )
    numeric = {field.name for field in row.signature.numeric}
    for name in (*limits.one_way, *limits.ranges):
        if name not in numeric:
            raise InvalidInput(
                f"The field {name!r} is no number, so it cannot be limited to one direction.",
                "Name it among the fields to keep instead.",
            )


def _describe(
    row: ExplainedRow,
    found: CounterfactualRows,
    boxes: LeafBoxes | None,
    predict: Callable[[Columns], Outputs],
) -> list[Counterfactual]:
    """Return the rows that were found as records."""
    if not len(found.rows):
        return []
    answers, signature = predict(found.rows), row.signature
    around = None if boxes is None else boxes.around(found.rows)
    labels = signature.output.labels
    numeric = [field.name for field in signature.numeric]
    textual = [field.name for field in signature.textual]
    results = []
    for at in range(len(found.rows)):
        changes = []
        for field, has_changed in zip(signature.fields, found.changed[at], strict=True):
            if not has_changed:
                continue
            name, changed = field.name, None
            ends: tuple[float | None, float | None] = None, None
            if name in numeric:
                number = float(found.rows.numbers[at, numeric.index(name)])
                changed = None if math.isnan(number) else value_in_kind(field, number)
                if boxes is not None and around is not None and changed is not None:
                    ends = boxes.ends_of(name, around.low[at], around.high[at])
            elif name in textual:
                changed = found.rows.texts[at, textual.index(name)]
            else:
                changed = found.rows.tensors[name][at].tolist()
            above, at_most = (None if end is None else value_in_kind(field, end) for end in ends)
            changes.append(
                FieldChange(
                    field=name,
                    value=row.values.get(name),
                    changed=changed,
                    above=above,
                    at_most=at_most,
                )
            )
        choice = None if answers.choices is None else int(answers.choices[at])
        shares = answers.probabilities
        results.append(
            Counterfactual(
                changes=changes,
                label=None if labels is None or choice is None else labels[choice],
                probability=None if shares is None or choice is None else float(shares[at, choice]),
                value=None if answers.values is None else float(answers.values[at]),
                distance=float(found.distances[at]),
            )
        )
    return results
