"""
Rows that occur twice: exactly, nearly, with another label, in the test table.

A row's digest is the sum of a 64-bit hash of each of its values. Without one field it is the sum
less that field's hash, so that rows which agree in all fields but one are found in one pass per
field. Two different rows of a million share a digest by chance once in 40 million tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.data.prepared_table import Codes, PreparedColumn, floats

if TYPE_CHECKING:
    import polars as pl

Hashes = NDArray[np.uint64]

MOST_FIELDS = 50
"""Fields up to which rows that agree in all but one are looked for."""

_EXAMPLES = 5


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows occur twice."""

    repeated: int  # rows that equal an earlier one in every field and the target
    repeated_fields: int  # rows that equal an earlier one in every field
    near: int | None  # different rows that nearly equal another; None: too many fields
    near_by_chance: int | None = None  # the same, if the fields are moved against each other
    near_fields: dict[str, int]  # field → rows that agree with another in all other fields
    contradictory: int | None  # rows whose fields equal those of a row with another label
    unavoidable: int | None  # of these, rows that any model must get wrong
    examples: list[list[int]]  # row numbers, from 0, of some that contradict each other


class TableOverlap(msgspec.Struct, frozen=True, kw_only=True):
    """Test rows that are in the training table as well."""

    rows: int  # of the test table
    exact: int  # whose fields equal those of a training row
    near: int | None  # besides these, that nearly equal one; None: too many fields
    near_by_chance: int | None = None  # the same, if the fields are moved against each other


def find_duplicates(
    fields: Sequence[PreparedColumn], target: PreparedColumn | None, labels: Codes | None
) -> Duplicates:
    """
    Count duplicate rows.

    Rows are near duplicates if, with strings in lower case and without punctuation, they agree in
    all fields but one, or in all once numbers are rounded to a hundredth of their standard
    deviation. Coarse fields agree by chance, so the same is counted after the fields were moved
    against each other.

    Args:
        fields: All columns but the target, of n values.
        target: The target column.
        labels: Its label indices, shape (n,), for a classification; -1 for null.
    """
    import polars as pl

    every = [*fields, *([] if target is None else [target])]
    rows = len(every[0].values) if every else 0
    exact = _sum([hash_values(column) for column in fields], rows)
    distinct = _count_distinct(exact)
    repeated = rows - distinct
    if target is not None:
        repeated = rows - _count_distinct(exact + hash_values(target) * np.uint64(3))
    contradictory = unavoidable = None
    examples: list[list[int]] = []
    if labels is not None:
        table = pl.DataFrame({"row": exact, "label": labels}).filter(pl.col("label") >= 0)
        groups = (
            table.group_by("row", "label")
            .len("rows")
            .group_by("row")
            .agg(
                pl.len().alias("labels"), pl.sum("rows").alias("all"), pl.max("rows").alias("most")
            )
            .filter(pl.col("labels") > 1)
        )
        contradictory = int(groups["all"].sum())
        unavoidable = int((groups["all"] - groups["most"]).sum())
        if len(groups):
            largest = groups.sort("all", "row", descending=[True, False])["row"].head(_EXAMPLES)
            for digest in largest:
                here = np.flatnonzero(exact == np.uint64(digest))
                _, first = np.unique(labels[here], return_index=True)
                examples.append(sorted(here[first][:3].tolist()))
    return Duplicates(
        repeated=repeated,
        repeated_fields=rows - distinct,
        **_find_near(fields, exact),
        contradictory=contradictory,
        unavoidable=unavoidable,
        examples=examples,
    )


def find_overlap(train: Sequence[PreparedColumn], test: Sequence[PreparedColumn]) -> TableOverlap:
    """Count test rows that are in the training table; both have the same fields in one order."""
    rows = len(test[0].values) if test else 0
    known = _sum([hash_values(each) for each in train], len(train[0].values) if train else 0)
    asked = _sum([hash_values(each) for each in test], rows)
    exact = _is_in(asked, known)
    if len(train) > MOST_FIELDS:
        return TableOverlap(rows=rows, exact=int(exact.sum()), near=None)
    scales = [_scale(each) for each in train]
    near = _is_in(
        _sum([_rounded_hash(*pair) for pair in zip(test, scales, strict=True)], rows),
        _sum([_rounded_hash(*pair) for pair in zip(train, scales, strict=True)], len(known)),
    )
    pairs = [(_plain_hash(a), _plain_hash(b)) for a, b in zip(train, test, strict=True)]
    near |= _agree_but_one(pairs)
    random = np.random.default_rng(0)
    by_chance = _agree_but_one([(_shift(a, random), b) for a, b in pairs])
    return TableOverlap(
        rows=rows,
        exact=int(exact.sum()),
        near=int((near & ~exact).sum()),
        near_by_chance=int((by_chance & ~exact).sum()),
    )


def _agree_but_one(pairs: Sequence[tuple[Hashes, Hashes]]) -> NDArray[np.bool_]:
    """Return which rows of the second of two tables agree with one of the first but in a field."""
    if not pairs:
        return np.zeros(0, dtype=np.bool_)
    known, asked = (_sum([pair[n] for pair in pairs], len(pairs[0][n])) for n in (0, 1))
    found = _is_in(asked, known)
    for a, b in pairs if len(pairs) > 1 else ():
        found |= _is_in(asked - b, known - a)
    return found


def hash_values(column: PreparedColumn) -> Hashes:
    """Hash each value with a seed of the column's name, shape (n,); null has a hash as well."""
    return _hash(column.name, column.values)


def _hash(name: str, values: pl.Series) -> Hashes:
    import polars as pl

    if values.dtype.is_integer() and values.dtype != pl.UInt64:
        values = values.cast(pl.Int64)  # a table may hold the same numbers in another width
    seed = int.from_bytes(name.encode("utf-8", "replace")[:64], "little") % (2**61 - 1)
    return np.asarray(values.hash(seed), dtype=np.uint64)


def _sum(parts: Sequence[Hashes], rows: int) -> Hashes:
    total = np.zeros(rows, dtype=np.uint64)
    for part in parts:
        total += part
    return total


def _find_near(fields: Sequence[PreparedColumn], exact: Hashes) -> dict[str, Any]:
    """Return the parts of `Duplicates` about near duplicates."""
    if len(fields) > MOST_FIELDS:
        return {"near": None, "near_fields": {}}
    _, first = np.unique(exact, return_index=True)  # each different row once
    first.sort()
    rounded = [_rounded_hash(column, _scale(column))[first] for column in fields]
    near = _is_repeated(_sum(rounded, len(first)))
    parts = [_plain_hash(column)[first] for column in fields]
    found: dict[str, int] = {}
    random = np.random.default_rng(0)
    shuffled = [_shift(part, random) for part in parts]
    total, chance = _sum(parts, len(first)), _sum(shuffled, len(first))
    near |= _is_repeated(total)
    by_chance = _is_repeated(_sum([_shift(part, random) for part in rounded], len(first)))
    for place, column in enumerate(fields if len(fields) > 1 else ()):
        here = _is_repeated(total - parts[place])
        if count := int(here.sum()):
            found[column.name] = count
        near |= here
        by_chance |= _is_repeated(chance - shuffled[place])
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return {
        "near": int(near.sum()),
        "near_by_chance": int(by_chance.sum()),
        "near_fields": dict(ordered),
    }


def _scale(column: PreparedColumn) -> float:
    if column.kind != "number":
        return 0.0
    spread = column.values.std()
    return float(spread) / 100 if isinstance(spread, float) and np.isfinite(spread) else 0.0


def _rounded_hash(column: PreparedColumn, scale: float) -> Hashes:
    import polars as pl

    if scale <= 0:
        return _plain_hash(column)
    rounded = pl.Series(column.name, np.round(floats(column) / scale))
    return _hash(column.name, rounded.fill_nan(None) + 0.0)


def _plain_hash(column: PreparedColumn) -> Hashes:
    if column.kind not in ("category", "text"):
        return hash_values(column)
    levels = column.values.drop_nulls().unique()
    if 2 * len(levels) > len(column.values):
        return _hash(column.name, _plain(column.values))
    return _hash(column.name, column.values.replace(levels, _plain(levels)))


def _plain(texts: pl.Series) -> pl.Series:
    return texts.str.to_lowercase().str.replace_all(r"[^\pL\pN]+", " ").str.strip_chars()


def _shift(part: Hashes, random: np.random.Generator) -> Hashes:
    """Move a field against the others, each by a number of rows of its own."""
    return np.roll(part, int(random.integers(max(len(part), 1))))


def _is_repeated(values: Hashes) -> NDArray[np.bool_]:
    ordered = np.sort(values)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return np.zeros(len(values), dtype=np.bool_)
    places = np.searchsorted(twice, values).clip(max=len(twice) - 1)
    return np.asarray(twice[places] == values)


def _is_in(values: Hashes, known: Hashes) -> NDArray[np.bool_]:
    import polars as pl

    return np.asarray(
        pl.Series(values).is_in(pl.Series(known).unique().implode()).to_numpy()
    ).copy()


def _count_distinct(values: Hashes) -> int:
    import polars as pl

    return pl.Series(values).n_unique()
