"""Counterfactuals: after which small changes of a row is the answer another?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

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
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import ExplainerOptions
from clewline.explain.leaf_boxes import LeafBoxes
from clewline.formatting import format_list
from clewline.model.runtime.outputs import Outputs
from clewline.signature.accepted_limits import (
    AcceptedFieldLimits,
    AcceptedLimits,
    field_rules,
)
from clewline.signature.columns import Columns
from clewline.signature.field import Signature, label_name
from clewline.signature.field_rules import value_in_kind


class CounterfactualOptions(ExplainerOptions, frozen=True, kw_only=True):
    """Options of counterfactuals: which answer is wanted, and which changes are allowed."""

    to: Annotated[
        str | int | float | bool | None,
        msgspec.Meta(description="the wanted label, or LOW..HIGH of a number; any other label"),
    ] = None
    keep: Annotated[frozenset[str], msgspec.Meta(description="fields that must not change")] = (
        frozenset()
    )
    up: Annotated[frozenset[str], msgspec.Meta(description="numbers that only grow")] = frozenset()
    down: Annotated[frozenset[str], msgspec.Meta(description="numbers that only shrink")] = (
        frozenset()
    )
    ranges: Annotated[
        dict[str, tuple[float | None, float | None]],
        msgspec.Meta(description="numbers, and what they may become, both ends included"),
    ] = msgspec.field(default_factory=dict)
    count: Annotated[int, msgspec.Meta(ge=1, description="at most so many counterfactuals")] = 3
    budget: Annotated[
        int, msgspec.Meta(ge=1, description="rows that the model answers, beside the background")
    ] = 20_000

    def limits(self, signature: Signature, accepted: AcceptedLimits) -> ChangeLimits:
        """Join the options with what a person has accepted for the fields: both hold."""
        keep = set(self.keep)
        one_way: dict[str, Direction] = {}
        for name in self.up:
            one_way[name] = "up"
        for name in self.down:
            one_way[name] = "down"
        ranges = {
            name: (-math.inf if low is None else low, math.inf if high is None else high)
            for name, (low, high) in self.ranges.items()
        }
        levels: dict[str, frozenset[str]] = {}
        together = []
        for rule in field_rules(signature, accepted):
            name = rule.field.name
            if (limits := accepted.fields.get(name)) is None:
                continue
            if limits.mutable is False:
                keep.add(name)
            elif limits.mutable is not True and limits.mutable != one_way.setdefault(
                name, limits.mutable
            ):
                keep.add(name)  # it may only grow and only shrink
            if rule.bounds is not None:
                low, high = ranges.get(name, (-math.inf, math.inf))
                ranges[name] = max(low, rule.bounds[0]), min(high, rule.bounds[1])
            if rule.levels is not None:
                levels[name] = frozenset(rule.levels)
            if limits.depends_on:
                together.append(frozenset({name, *limits.depends_on}))
        return ChangeLimits(frozenset(keep), one_way, ranges, levels, tuple(together))


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
    accepted: dict[
        str, AcceptedFieldLimits
    ]  # by field: what the revision's `signatures/NAME.yaml` lets change
    counterfactuals: list[Counterfactual]


class CounterfactualExplainer:
    """Finds small changes of a row after which its model answers otherwise."""

    kind = "counterfactuals"
    options = CounterfactualOptions
    explanation = CounterfactualExplanation

    def preference(self, model: ExplainedModel) -> int:
        """Suit a classifier roughly; of a regression a range must be named."""
        return 0 if model.signature.output.labels is None else 1

    def explain(
        self, row: ExplainedRow, options: CounterfactualOptions
    ) -> CounterfactualExplanation:
        """
        Find changes of the row, the smallest first.

        Raises:
            InvalidInput: The model has no such label, range or field, or answers so already.
            ModelFailed: The model raised on a changed row.
        """
        _check_fields(row, options)
        accepted = _accepted_of(row)
        wanted = _WantedAnswer.read(row, None if options.to is None else label_name(options.to))
        model, boxes = row.model, row.model.boxes
        search = model.remember(
            self.kind,
            lambda: CounterfactualSearch(
                model.predict, model.background, model.signature, boxes, model.sample.answers
            ),
        )
        found = search.find(
            row.columns,
            wanted.holds,
            limits=options.limits(row.signature, accepted),
            count=options.count,
            budget=options.budget,
        )
        results = _describe(row, found, boxes, model.predict)
        asked = len(row.background) if model.sample.answers is None else 0
        none: Literal["none", "budget spent"] = "budget spent" if found.is_budget_spent else "none"
        return CounterfactualExplanation(
            **row.facts(options),
            status="found" if results else none,
            answer=row.answer["value" if row.label_place is None else "label"],
            wanted=wanted.text,
            accepted=accepted.fields,
            counterfactuals=results,
            model_rows=asked + found.model_rows + len(results),
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
            raise InvalidInput(f"{row.model.ref} has no label {to!r}.", hint)
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
                f"{row.model.ref} answers with a number: write --to LOW..HIGH, such as "
                "--to 100..200, --to 100.. or --to ..200.",
            )
        value = row.answer["value"]
        if ends[0] <= value <= ends[1]:
            raise InvalidInput(f"The answer is {value:g}, which is in {to} already.")

        def holds(found: Outputs) -> NDArray[np.bool_]:
            assert found.values is not None, "a regression answers with values"
            return (ends[0] <= found.values) & (found.values <= ends[1])

        return cls(str(to), holds)


def _choices(found: Outputs) -> NDArray[np.int64]:
    assert found.choices is not None, "a classifier answers with choices"
    return found.choices


def _accepted_of(row: ExplainedRow) -> AcceptedLimits:
    """Return what was accepted for fields that the model has; an arm of a route may lack some."""
    names = {field.name for field in row.signature.fields}
    return AcceptedLimits(
        {
            name: msgspec.structs.replace(
                limits, depends_on=tuple(other for other in limits.depends_on if other in names)
            )
            for name, limits in row.accepted.fields.items()
            if name in names
        }
    )


def _check_fields(row: ExplainedRow, options: CounterfactualOptions) -> None:
    names = [field.name for field in row.signature.fields]
    for name in sorted({*options.keep, *options.up, *options.down, *options.ranges}):
        if name not in names:
            raise InvalidInput(f"{row.model.ref} has no field {name!r}.", did_you_mean(name, names))
    numeric = {field.name for field in row.signature.numeric}
    for name in sorted({*options.up, *options.down, *options.ranges}):
        if name not in numeric:
            raise InvalidInput(
                f"The field {name!r} is no number, so it has no direction and no range.",
                "Name it among the fields to keep instead.",
            )
    if both := sorted(options.up & options.down):
        raise InvalidInput(
            f"{format_list(both)} is to grow only and to shrink only.",
            "Name it once, or among the fields to keep.",
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
