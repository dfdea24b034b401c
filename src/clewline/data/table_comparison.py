"""Is a second table like the first? By a classifier that tries to tell their rows apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clewline.data.assessment import FieldShift, TableComparison
from clewline.data.discriminator import MOST_FIELDS, discriminate
from clewline.data.prepared_table import PreparedColumn, PreparedTable, floats
from clewline.errors import InvalidInput
from clewline.formatting import format_number
from clewline.signature import timestamps

if TYPE_CHECKING:
    import polars as pl

MODEL_ROWS = 10_000
"""Rows of each table that the classifier uses."""

_LISTED_LEVELS = 5
_NUMERIC = ("number", "boolean", "datetime")


def compare_tables(
    table: PreparedTable, other: PreparedTable, *, target: str | None, seed: int
) -> TableComparison:
    """
    Compare a second table with the assessed one.

    Args:
        table: The assessed one.
        other: The second, such as rows that were seen live. It needs no target.
        target: A column that is not compared.
        seed: Seed of samples and models.

    Raises:
        InvalidInput: The tables have no field in common.
    """
    names = [name for name in table.columns if name != target]
    common = [name for name in names if name in other.columns]
    if not common:
        raise InvalidInput(
            "The second table has no field of the first: "
            f"it has {', '.join(list(other.columns)[:5]) or 'no column'}.",
            "Compare two tables of the same fields.",
        )
    pairs = {name: _alike(table.columns[name], other.columns[name]) for name in common}
    shifts = sorted(
        (_measure_shift(*pair) for pair in pairs.values()), key=lambda shift: -shift.distance
    )
    parts = [
        PreparedTable(each.rows, {name: pair[place] for name, pair in pairs.items()}).sample(
            MODEL_ROWS, seed + place
        )
        for place, each in enumerate((table, other))
    ]
    likely = [shift.field for shift in shifts[:MOST_FIELDS]]
    columns = [
        PreparedColumn(
            name,
            pairs[name][0].kind,
            pairs[name][0].dtype,
            _append(parts[0].columns[name].values, parts[1].columns[name].values),
        )
        for name in common
        if name in likely
    ]
    groups = np.repeat([0, 1], [part.rows for part in parts])
    return TableComparison(
        rows=other.rows,
        missing_fields=[name for name in names if name not in other.columns],
        new_fields=[n for n in other.columns if n not in table.columns and n != target],
        apart=discriminate(columns, groups, seed=seed),
        shifts=shifts,
    )


def _alike(one: PreparedColumn, other: PreparedColumn) -> tuple[PreparedColumn, PreparedColumn]:
    """Return both columns as one kind: as strings, if they are not of the same."""
    import polars as pl

    if (one.kind in _NUMERIC) == (other.kind in _NUMERIC):
        kind = one.kind
        return one, PreparedColumn(other.name, kind, other.dtype, other.values)
    parts = [
        PreparedColumn(each.name, "category", each.dtype, each.values.cast(pl.String))
        for each in (one, other)
    ]
    return parts[0], parts[1]


def _append(one: pl.Series, other: pl.Series) -> pl.Series:
    import polars as pl

    if one.dtype != other.dtype:
        kind = pl.Float64 if one.dtype.is_numeric() and other.dtype.is_numeric() else pl.String
        one, other = one.cast(kind), other.cast(kind)
    return pl.concat([one.alias("value"), other.alias("value")])


def _measure_shift(one: PreparedColumn, other: PreparedColumn) -> FieldShift:
    if one.kind in ("number", "datetime", "text"):
        return _shift_of_numbers(one, other)
    return _shift_of_levels(one, other)


def _shift_of_numbers(one: PreparedColumn, other: PreparedColumn) -> FieldShift:
    """Measure the largest difference of the distribution functions; null is the least value."""
    sides = [
        np.sort(np.nan_to_num(floats(each), nan=-np.inf, posinf=np.inf, neginf=-np.inf))
        for each in (one, other)
    ]
    if not all(len(side) for side in sides):
        return FieldShift(field=one.name, distance=0.0, before="no row", after="no row")
    places = np.unique(np.concatenate([np.unique(side) for side in sides]))
    shares = [np.searchsorted(side, places, side="right") / len(side) for side in sides]
    texts = []
    for side in sides:
        known = side[np.isfinite(side)]
        if not len(known):
            texts.append("null")
        elif one.kind == "datetime":
            texts.append(f"median {timestamps.format_microseconds(float(np.median(known)))}")
        elif one.kind == "text":
            texts.append(f"mean length {_write(float(known.mean()))}")
        else:
            texts.append(f"mean {_write(float(known.mean()))}")
    gaps = [float(np.isneginf(side).mean()) for side in sides]
    if abs(gaps[0] - gaps[1]) > 0.01:
        texts = [f"{text}, null {gap:.1%}" for text, gap in zip(texts, gaps, strict=True)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    return FieldShift(field=one.name, distance=distance, before=texts[0], after=texts[1])


def _shift_of_levels(one: PreparedColumn, other: PreparedColumn) -> FieldShift:
    import polars as pl

    sides = []
    for each, name in ((one, "before"), (other, "after")):
        levels = pl.DataFrame({"level": each.values.cast(pl.String)})
        sides.append(levels.group_by("level").len(name))
    both = sides[0].join(sides[1], on="level", how="full", nulls_equal=True, coalesce=True)
    both = both.with_columns(pl.col("before").fill_null(0), pl.col("after").fill_null(0))
    rows = [max(len(each.values), 1) for each in (one, other)]
    shares = both.with_columns(pl.col("before") / rows[0], pl.col("after") / rows[1])
    gap = (shares["after"] - shares["before"]).abs()
    if not len(gap):
        return FieldShift(field=one.name, distance=0.0, before="no row", after="no row")
    level, before, after = shares.row(int(gap.arg_max() or 0))
    unseen = both.filter((pl.col("before") == 0) & pl.col("level").is_not_null())
    unseen = unseen.sort("after", "level", descending=[True, False])
    name = "null" if level is None else str(level)[:60]
    return FieldShift(
        field=one.name,
        distance=float(gap.sum()) / 2,
        before=f"{name} {before:.1%}",
        after=f"{name} {after:.1%}",
        unseen_rows=int(unseen["after"].sum()),
        unseen=[str(each)[:60] for each in unseen["level"].head(_LISTED_LEVELS)],
    )


def _write(value: float) -> str:
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else format_number(value)
