"""Time and entities: what leaks between training and test rows, and what changes over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from clewline.errors import InvalidInput
from clewline.evaluation.answers import EvaluatedRows
from clewline.evaluation.columns import EvaluatedColumn, EvaluatedColumns, require_column
from clewline.evaluation.conditions import Mask
from clewline.evaluation.metrics import Floats, Integers, Interval
from clewline.formatting import format_list

BINS = 10
RESAMPLES = 200
_EXAMPLES = 5

TimeNames = str | Sequence[str]


class SplitCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What training and test rows share that they should not."""

    train_rows: int
    test_rows: int
    train_end: str | None = None  # the last moment of the training rows
    test_start: str | None = None
    early_test_rows: int | None = None  # not later than the last training row
    shared_groups: int | None = None  # entities with rows on both sides
    shared_group_rows: int | None = None  # test rows of such entities
    examples: tuple[str, ...] = ()  # some of these entities


class ChangingLabels(msgspec.Struct, frozen=True, kw_only=True):
    """Entities with several labels, among training and test rows together."""

    groups: int  # entities
    changing_groups: int  # entities with more than one label
    contradictory_rows: int | None  # overlap in time with a row of their entity of another label
    contradictory_groups: int | None  # None without a time
    examples: tuple[str, ...] = ()  # some entities with contradictory rows, or changing labels


class TimeBin(msgspec.Struct, frozen=True):
    """The test rows of one stretch of time; the bins hold nearly equally many rows."""

    start: str
    end: str
    rows: int
    metrics: dict[str, Interval]


class TimeAndGroups(msgspec.Struct, frozen=True, kw_only=True):
    """Leaks between training and test rows, changing labels, and metrics over time."""

    time: tuple[str, ...] = ()  # the columns: one moment, or start and end
    group: str | None = None
    split: tuple[str, ...] = ()  # what was required to be separate: "time", "group"
    check: SplitCheck | None = None  # None without training rows
    labels: ChangingLabels | None = None  # None for regressions, or without a group
    bins: tuple[TimeBin, ...] = ()
    rows_without_time: int = 0


@dataclass(frozen=True, slots=True)
class TimeAndGroupNames:
    """The columns that date rows and name their entities, and what must not be shared."""

    time: tuple[str, ...] = ()
    group: str | None = None
    split: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, time: TimeNames | None, group: str | None, split: str | Sequence[str] | None
    ) -> TimeAndGroupNames:
        """
        Check what was passed to `cl.evaluate`.

        Raises:
            InvalidInput: The names do not fit together.
        """
        times = () if time is None else (time,) if isinstance(time, str) else tuple(time)
        splits = () if split is None else (split,) if isinstance(split, str) else tuple(split)
        if len(times) > 2:
            raise InvalidInput(
                f"time= names {len(times)} columns.", "Name one moment, or start and end."
            )
        for each in splits:
            if each not in ("time", "group"):
                raise InvalidInput(
                    f"split={each!r} is unknown.", 'Use "time", "group" or ("time", "group").'
                )
            if each == "time" and not times:
                raise InvalidInput('split="time" needs time=, the column that dates the rows.')
            if each == "group" and group is None:
                raise InvalidInput('split="group" needs group=, the column of the entities.')
        return cls(times, group, splits)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        return self.time if self.group is None else (*self.time, self.group)


def read_groups(columns: EvaluatedColumns, name: str) -> Integers:
    """
    Return the entity of each row, from 0, shape (n,).

    Raises:
        InvalidInput: There is no such column, or it holds nulls.
    """
    column = require_column(columns, name)
    if missing := int(column.is_null.sum()):
        raise InvalidInput(
            f"{missing} of {len(column.values)} rows have no {name!r}, which groups the rows.",
            "Drop those rows, or give each an own value.",
        )
    _, codes = np.unique(column.values, return_inverse=True)
    return codes


def time_and_groups(
    evaluated: EvaluatedRows,
    names: TimeAndGroupNames,
    *,
    train: EvaluatedColumns | None = None,
    train_labels: Integers | None = None,
) -> TimeAndGroups:
    """
    Look for entities and futures that leak, for contradictory labels, and for changes over time.

    Args:
        evaluated: The test rows.
        names: The columns.
        train: The training table; None if it was not passed.
        train_labels: Its label indices; None for a regression.

    Raises:
        InvalidInput: There is no such column; or rows leak that `names.split` says are separate.
    """
    test = evaluated.columns
    if names.split and train is None:
        raise InvalidInput(
            f"split={list(names.split)} compares the test rows with the training rows.",
            "Pass train=, the table that the model was fitted on.",
        )
    check = None if train is None else _check_split(train, test, names, evaluated.rows)
    if check is not None:
        _refuse_leaks(check, names)
    start = _moments(test, names.time[0]) if names.time else None
    return TimeAndGroups(
        time=names.time,
        group=names.group,
        split=names.split,
        check=check,
        labels=_changing_labels(evaluated, names, train, train_labels),
        bins=() if start is None else _bins(evaluated, test[names.time[0]], start),
        rows_without_time=0 if start is None else int(np.isnan(start).sum()),
    )


def _moments(columns: EvaluatedColumns, name: str) -> Floats:
    column = require_column(columns, name)
    if not column.is_numeric:
        raise InvalidInput(
            f"The column {name!r} dates the rows, and holds texts.",
            "Turn it into date-times or numbers.",
        )
    return np.asarray(column.values, dtype=np.float64)


def _check_split(
    train: EvaluatedColumns, test: EvaluatedColumns, names: TimeAndGroupNames, rows: int
) -> SplitCheck:
    found = SplitCheck(
        train_rows=len(next(iter(train.values())).values) if train else 0, test_rows=rows
    )
    if names.time:
        ends, starts = _moments(train, names.time[-1]), _moments(test, names.time[0])
        write = test[names.time[0]].format_number
        if not np.isnan(ends).all() and not np.isnan(starts).all():
            last = float(np.nanmax(ends))
            found = msgspec.structs.replace(
                found,
                train_end=write(last),
                test_start=write(float(np.nanmin(starts))),
                early_test_rows=int((starts <= last).sum()),
            )
    if names.group is not None:
        column = require_column(test, names.group)
        known = _joint_codes(require_column(train, names.group), column)
        shared = np.isin(known[1], known[0])
        some = np.unique(known[1][shared], return_index=True)[1]
        firsts = np.sort(np.flatnonzero(shared)[some])[:_EXAMPLES]
        examples = [_write(column, row) for row in firsts]
        found = msgspec.structs.replace(
            found,
            shared_groups=len(some),
            shared_group_rows=int(shared.sum()),
            examples=tuple(examples),
        )
    return found


def _refuse_leaks(check: SplitCheck, names: TimeAndGroupNames) -> None:
    if "time" in names.split and check.early_test_rows:
        raise InvalidInput(
            f"The split is by time, but {check.early_test_rows:,} of {check.test_rows:,} test rows "
            f"are not later than the last training row ({check.train_end}); the first test row is "
            f"of {check.test_start}.",
            "Train on rows before a moment and test on rows after it, or leave split= out: then "
            "the report only counts them.",
        )
    if "group" in names.split and check.shared_groups:
        raise InvalidInput(
            f"The split is by {names.group!r}, but {check.shared_groups:,} of them have rows in "
            f"training and test, such as {format_list(check.examples)}: "
            f"{check.shared_group_rows:,} of {check.test_rows:,} test rows.",
            "Put all rows of one on the same side, or leave split= out: then the report only "
            "counts them.",
        )


def _joint_codes(one: EvaluatedColumn, two: EvaluatedColumn) -> tuple[Integers, Integers]:
    """Code two columns so that equal values have equal codes; nulls are -1."""
    if one.is_numeric != two.is_numeric:
        raise InvalidInput(
            f"The column {one.name!r} holds numbers in one of the tables and texts in the other."
        )
    if one.is_numeric:
        known, codes = np.unique(np.concatenate([one.values, two.values]), return_inverse=True)
        codes = np.where(np.isnan(known[codes]), -1, codes)
        return codes[: len(one.values)], codes[len(one.values) :]
    levels = list(two.levels or ())
    place = {(type(level), level): code for code, level in enumerate(levels)}
    translate = np.full(len(one.levels or ()) + 1, -1, dtype=np.int64)
    for code, level in enumerate(one.levels or ()):
        translate[code] = place.get((type(level), level), len(levels) + code)
    return translate[one.values], two.values


def _write(column: EvaluatedColumn, row: int) -> str:
    value = column.values[row]
    if column.levels is None:
        return column.format_number(float(value))
    return str(column.levels[int(value)])


def _changing_labels(
    evaluated: EvaluatedRows,
    names: TimeAndGroupNames,
    train: EvaluatedColumns | None,
    train_labels: Integers | None,
) -> ChangingLabels | None:
    if names.group is None or not evaluated.task.labels:
        return None
    tables, labels = [evaluated.columns], [evaluated.task.truth.astype(np.int64)]
    if train is not None and train_labels is not None:
        read_groups(train, names.group)  # refuses nulls
        tables, labels = [train, *tables], [train_labels, *labels]
    parts = [require_column(table, names.group) for table in tables]
    groups = _joint_codes(parts[0], parts[-1])
    owners = np.concatenate(groups[-len(tables) :]) if len(tables) > 1 else groups[1]
    label = np.concatenate(labels)
    count = len(evaluated.task.labels)
    _, inverse = np.unique(owners, return_inverse=True)
    total = int(inverse.max()) + 1
    many = np.bincount(np.unique(inverse * count + label) // count, minlength=total)
    marked = many[inverse] > 1
    contradictory = None
    if names.time:
        starts, ends = (
            np.concatenate([_moments(table, name) for table in tables])
            for name in (names.time[0], names.time[-1])
        )
        contradictory = contradictory_rows(inverse, starts, ends, label, closed=len(names.time) < 2)
        marked = contradictory if contradictory.any() else marked
    # Examples are named by their first row.
    firsts = np.flatnonzero(marked)[np.unique(inverse[marked], return_index=True)[1]]
    before = len(label) - evaluated.rows
    examples = [
        _write(parts[0] if row < before else parts[-1], row if row < before else row - before)
        for row in np.sort(firsts)[:_EXAMPLES].tolist()
    ]
    return ChangingLabels(
        groups=total,
        changing_groups=int((many > 1).sum()),
        contradictory_rows=None if contradictory is None else int(contradictory.sum()),
        contradictory_groups=(
            None if contradictory is None else len(np.unique(inverse[contradictory]))
        ),
        examples=tuple(examples),
    )


def contradictory_rows(
    groups: Integers, starts: Floats, ends: Floats, labels: Integers, *, closed: bool
) -> Mask:
    """
    Return which rows overlap in time with a row of their entity that has another label.

    Args:
        groups: The entity of each row, from 0, shape (n,).
        starts: When each row begins, shape (n,); rows with NaN overlap with none.
        ends: When it ends, not before it begins.
        labels: Label indices, shape (n,).
        closed: Whether rows that only touch overlap, as moments do.
    """
    found = np.zeros(len(groups), dtype=np.bool_)
    known = np.flatnonzero(~(np.isnan(starts) | np.isnan(ends)))
    order = known[np.lexsort((starts[known], groups[known]))]
    if not order.size:
        return found
    # Moments as ranks, so that an entity's base can be added without rounding.
    moments, ranks = np.unique(np.concatenate([starts[order], ends[order]]), return_inverse=True)
    start, end = ranks[: len(order)], ranks[len(order) :]
    base = groups[order] * (len(moments) + 2)
    for label in np.unique(labels[order]):
        own = labels[order] == label
        # The latest end of earlier rows, and the earliest start of later rows, of other labels.
        until = np.maximum.accumulate(np.where(own, base, base + end + 1)) - base - 1
        since = np.where(own, base + len(moments) + 1, base + start)[::-1]
        since = np.minimum.accumulate(since)[::-1] - base
        touches = (until >= start) & (until >= 0) if closed else until > start
        meets = since <= end if closed else since < end
        found[order[own & (touches | meets)]] = True
    return found


def _bins(
    evaluated: EvaluatedRows, column: EvaluatedColumn, moments: Floats
) -> tuple[TimeBin, ...]:
    known = np.flatnonzero(~np.isnan(moments))
    if not known.size:
        return ()
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.unique(np.quantile(moments[known], inner, method="lower"))
    places = np.searchsorted(edges, moments[known])
    found = []
    for place in np.unique(places):
        rows = known[places == place]
        first, last = float(moments[rows].min()), float(moments[rows].max())
        metrics = evaluated.take(rows, resamples=RESAMPLES).metrics()
        write = column.format_number
        found.append(TimeBin(write(first), write(last), len(rows), metrics))
    return tuple(found)
