"""The conditions of an anchor on the fields of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clewline.explain.anchor_search import Rule
from clewline.model.runtime.outputs import take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975)
"""Of the training rows; a condition on a number compares it with one of these."""
MOST_THRESHOLDS = 2000
"""Of all numbers together: where there are many numbers, each has fewer."""


@dataclass(frozen=True, slots=True)
class RuleCondition:
    """A condition on one field: above a number, at most a number, or this very value."""

    field: int  # place among the signature's fields
    above: float | None = None
    at_most: float | None = None
    value: Any = None  # None of a condition without bounds: null

    @property
    def key(self) -> bytes:
        """What it says: other conditions have other keys."""
        value = self.value.tobytes() if isinstance(self.value, np.ndarray) else self.value
        return repr((self.field, self.above, self.at_most, value)).encode("utf-8", "surrogatepass")


class TrainingFields:
    """
    The training rows, ready for conditions on their fields. The same for all rows of a version.

    Args:
        rows: Training rows.
        signature: Of the model.
    """

    def __init__(self, rows: Columns, signature: Signature) -> None:
        self.rows, self.signature = rows, signature
        self.places = {each.name: place for place, each in enumerate(signature.fields)}
        self.thresholds: list[NDArray[np.float64]] = []
        self.at_most: list[NDArray[np.bool_]] = []  # of each number (n, thresholds)
        self.known = ~np.isnan(rows.numbers)
        columns = rows.numbers.shape[1]
        each = max(1, MOST_THRESHOLDS // max(1, columns))
        levels = np.array(QUANTILES)
        if each < len(levels):
            levels = np.arange(1, each + 1) / (each + 1)
        for column in range(columns):
            values = rows.numbers[:, column]
            known = np.sort(values[self.known[:, column]])
            places = np.ceil(levels * len(known)).astype(np.int64) - 1
            found = np.unique(known[np.maximum(places, 0)]) if len(known) else known
            found = found[found < known[-1]] if len(known) else found
            self.thresholds.append(found)
            self.at_most.append(values[:, None] <= found)  # null: no
        self.codes = np.empty(rows.texts.shape, dtype=np.int64)
        self.code_of: list[dict[str | None, int]] = []
        for column in range(rows.texts.shape[1]):
            known_texts: dict[str | None, int] = {}
            self.codes[:, column] = [
                known_texts.setdefault(text, len(known_texts)) for text in rows.texts[:, column]
            ]
            self.code_of.append(known_texts)


class SplicedRows(NamedTuple):
    """Training rows, and those from which they take what a rule speaks of."""

    rule: Rule
    fulfilling: NDArray[np.intp] | None  # None: the explained row, as no training row fulfils it
    others: NDArray[np.intp]


class FieldConditions:
    """
    The conditions on fields that one row fulfils.

    A perturbed row is a training row; the fields that the rule speaks of are taken, together,
    from another training row that fulfils the rule, or from the explained row if none does.

    Args:
        training: The training rows.
        row: The explained row.
    """

    is_of_version, are_training_rows, row_cost, searched_rows = True, True, 1, 32

    def __init__(self, training: TrainingFields, row: Columns) -> None:
        self._training, self._row = training, row
        self.conditions: list[RuleCondition] = []
        truth: list[NDArray[np.bool_]] = []
        signature, places = training.signature, training.places
        for column, each in enumerate(signature.numeric):
            value, place = float(row.numbers[0, column]), places[each.name]
            known, at_most = training.known[:, column], training.at_most[column]
            if np.isnan(value):
                self.conditions.append(RuleCondition(place))
                truth.append(~known)
                continue
            for at, threshold in enumerate(training.thresholds[column].tolist()):
                if value <= threshold:
                    self.conditions.append(RuleCondition(place, at_most=threshold))
                    truth.append(at_most[:, at])
                else:
                    self.conditions.append(RuleCondition(place, above=threshold))
                    truth.append(known & ~at_most[:, at])
        for column, each in enumerate(signature.textual):
            text = row.texts[0, column]
            self.conditions.append(RuleCondition(places[each.name], value=text))
            code = training.code_of[column].get(text, -1)
            truth.append(training.codes[:, column] == code)
        for each in signature.tensors:
            own, all_ = row.tensors[each.name], training.rows.tensors[each.name]
            self.conditions.append(RuleCondition(places[each.name], value=own[0]))
            truth.append((all_ == own).reshape(len(all_), -1).all(axis=1))
        self.truth = np.stack(truth, axis=1)
        self.sides: list[tuple[object, ...]] = [
            (each.field, each.above is not None, each.at_most is not None)
            for each in self.conditions
        ]
        self.keys = [each.key for each in self.conditions]
        self._field = np.array([each.field for each in self.conditions])

    def fields(self, rule: Rule) -> frozenset[int]:
        """Return the places of the fields that a rule speaks of."""
        return frozenset(self.conditions[at].field for at in rule)

    def draw(
        self, rule: Rule, fulfilling: NDArray[np.intp], random: np.random.Generator, count: int
    ) -> SplicedRows:
        """Draw pairs of training rows."""
        others = random.integers(len(self.truth), size=count)
        if not len(fulfilling):
            return SplicedRows(rule, None, others)
        return SplicedRows(rule, fulfilling[random.integers(len(fulfilling), size=count)], others)

    def fulfilled(self, drawn: SplicedRows) -> NDArray[np.bool_]:
        """Say which condition each row fulfils."""
        truth = self.truth[drawn.others]
        taken = np.flatnonzero(np.isin(self._field, list(self.fields(drawn.rule))))
        if drawn.fulfilling is None:
            truth[:, taken] = True
        else:
            truth[:, taken] = self.truth[np.ix_(drawn.fulfilling, taken)]
        return truth

    def perturb(self, drawn: list[SplicedRows]) -> Columns:
        """Join training rows with fields of others."""
        training = self._training
        signature, places = training.signature, training.places
        found = take_rows(training.rows, np.concatenate([each.others for each in drawn]))
        tensors = {name: np.array(values) for name, values in found.tensors.items()}
        end = 0
        for each in drawn:
            here = slice(end, end + len(each.others))
            end, fields = here.stop, self.fields(each.rule)
            taken, source = training.rows, each.fulfilling
            if source is None:
                taken, source = self._row, np.zeros(len(each.others), dtype=np.intp)
            for into, own, named in (
                (found.numbers, taken.numbers, signature.numeric),
                (found.texts, taken.texts, signature.textual),
            ):
                for column, field in enumerate(named):
                    if places[field.name] in fields:
                        into[here, column] = own[source, column]
            for field in signature.tensors:
                if places[field.name] in fields:
                    tensors[field.name][here] = taken.tensors[field.name][source]
        return Columns(found.numbers, found.texts, tensors)
