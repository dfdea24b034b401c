"""What each field of a table holds, and which values are missing together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from clewline.data.field_power import FieldPower
from clewline.data.prepared_table import Kind, PreparedColumn, PreparedTable, floats
from clewline.signature import timestamps

if TYPE_CHECKING:
    import polars as pl

LISTED_LEVELS = 12
PATTERNS = 12
HISTOGRAM_BINS = 24
_SHOWN = 100  # characters of a value
_EXAMPLES = 5
_CHECKED_LEVELS = 20_000
NULL_TEXTS = frozenset({"", "?", "-", ".", "na", "n/a", "#n/a", "nan", "null", "none", "nil"})


class FieldHistogram(msgspec.Struct, frozen=True):
    """Rows between ascending edges; the first and the last bin hold all that lies outside."""

    edges: list[float]
    rows: list[int]


class LevelRows(msgspec.Struct, frozen=True):
    """A value and the number of rows that have it."""

    value: str
    rows: int


class FieldSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one field holds."""

    name: str
    kind: Kind
    dtype: str  # as the table has it
    nulls: int
    distinct: int  # without null
    top: LevelRows | None = None  # the most frequent value
    low: float | None = None  # of numbers; of date-times in microseconds since the epoch
    high: float | None = None
    mean: float | None = None
    deviation: float | None = None
    quartiles: tuple[float, float, float] | None = None
    histogram: FieldHistogram | None = None
    levels: list[LevelRows] | None = None  # the most frequent ones
    numeric_rows: int | None = None  # of strings, rows whose text is a number
    odd: list[str] | None = None  # examples of the other texts, if most are numbers
    null_texts: list[LevelRows] | None = None  # texts that probably stand for null
    spellings: list[list[str]] | None = None  # texts that differ only in case or spaces
    isolated: LevelRows | None = None  # a repeated extreme, far from all other values
    power: FieldPower | None = None  # of the field alone, for the target
    missing_power: FieldPower | None = None  # of whether it is null


class MissingPattern(msgspec.Struct, frozen=True):
    """Fields that are null together, and no others, in a number of rows."""

    fields: list[str]
    rows: int


def summarise_field(column: PreparedColumn) -> FieldSummary:
    """Summarise one column, all of its rows."""
    values, name = column.values, column.name
    counts = values.drop_nulls().alias("level").value_counts(name="rows")
    known: dict[str, Any] = {
        "name": name,
        "kind": column.kind,
        "dtype": column.dtype,
        "nulls": values.null_count(),
        "distinct": len(counts),
    }
    if not len(counts):
        return FieldSummary(**known)
    # The most frequent value; of equally frequent ones always the same.
    most = counts.filter(counts["rows"] == counts["rows"].max())["level"].sort()[0]
    known["top"] = LevelRows(_text(column, most), int(counts["rows"].max()))  # type: ignore[arg-type]
    if column.kind in ("number", "datetime"):
        known |= _summarise_numbers(column, counts)
    else:
        ordered = counts.sort("rows", "level", descending=[True, False]).head(LISTED_LEVELS)
        known["levels"] = [LevelRows(_text(column, level), int(n)) for level, n in ordered.rows()]
        if column.kind in ("category", "text"):
            known |= _inspect_texts(counts)
    return FieldSummary(**known)


def missing_patterns(table: PreparedTable) -> list[MissingPattern]:
    """Count the sets of fields that are null together, the most frequent first."""
    import polars as pl

    gaps = [each for each in table.columns.values() if each.values.null_count()]
    if not gaps:
        return []
    digest = np.zeros(table.rows, dtype=np.uint64)
    random = np.random.default_rng(0)
    masks = {}
    for column in gaps:
        mask = column.values.is_null().to_numpy()
        masks[column.name] = mask
        digest += np.where(mask, random.integers(1, 2**63, dtype=np.uint64), np.uint64(0))
    found = (
        pl.DataFrame({"digest": digest, "row": np.arange(table.rows)})
        .filter(pl.col("digest") > 0)
        .group_by("digest")
        .agg(pl.len().alias("rows"), pl.min("row"))
        .sort("rows", "row", descending=[True, False])
        .head(PATTERNS)
    )
    return [
        MissingPattern([name for name, mask in masks.items() if mask[row]], rows)
        for _, rows, row in found.rows()
    ]


def _summarise_numbers(column: PreparedColumn, counts: pl.DataFrame) -> dict[str, Any]:
    numbers = floats(column)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return {}
    low, p1, p25, p50, p75, p99, high = np.quantile(
        numbers, [0, 0.01, 0.25, 0.5, 0.75, 0.99, 1]
    ).tolist()
    found: dict[str, Any] = {
        "low": low,
        "high": high,
        "mean": float(numbers.mean()),
        "deviation": float(numbers.std()),
        "quartiles": (p25, p50, p75),
    }
    distinct = counts["level"].cast(float, strict=False).drop_nulls().sort().to_numpy()
    if len(distinct) <= HISTOGRAM_BINS:
        edges = (distinct[:-1] + distinct[1:]) / 2
    else:
        ends = (p1, p99) if p1 < p99 else (low, high)
        edges = np.linspace(*ends, HISTOGRAM_BINS + 1)[1:-1]
    rows = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=len(edges) + 1)
    found["histogram"] = FieldHistogram(edges.tolist(), rows.tolist())
    if column.kind == "number" and len(distinct) > 3:
        found["isolated"] = _find_isolated(numbers, distinct)
    return found


def _find_isolated(numbers: Any, distinct: Any) -> LevelRows | None:
    """Find an extreme that several rows have and that lies further off than all others spread."""
    for extreme, near, far in (
        (distinct[-1], distinct[-2], distinct[0]),
        (distinct[0], distinct[1], distinct[-1]),
    ):
        rows = int((numbers == extreme).sum())
        if rows >= 5 and abs(extreme - near) > abs(near - far):
            return LevelRows(f"{extreme:.15g}", rows)
    return None


def _inspect_texts(counts: pl.DataFrame) -> dict[str, Any]:
    import polars as pl

    found: dict[str, Any] = {}
    levels = counts.sort("rows", "level", descending=[True, False]).head(_CHECKED_LEVELS)
    texts = levels["level"].str.strip_chars()
    numeric = texts.cast(pl.Float64, strict=False).is_not_null()
    if rows := int(levels["rows"].filter(numeric).sum()):
        found["numeric_rows"] = rows
        if 2 * rows > int(levels["rows"].sum()):
            found["odd"] = [_cut(each) for each in levels["level"].filter(~numeric).head(_EXAMPLES)]
    lower = texts.str.to_lowercase()
    absent = levels.filter(lower.is_in(list(NULL_TEXTS)))
    if len(absent):
        found["null_texts"] = [LevelRows(text, int(n)) for text, n in absent.rows()]
    plain = lower.str.replace_all(r"\s+", " ")
    groups = (
        pl.DataFrame({"plain": plain, "text": levels["level"], "rows": levels["rows"]})
        .group_by("plain")
        .agg(
            pl.len().alias("count"), pl.col("text").sort_by("rows", descending=True), pl.sum("rows")
        )
        .filter(pl.col("count") > 1)
        .sort("rows", "plain", descending=[True, False])
    )
    if len(groups):
        found["spellings"] = [
            [_cut(text) for text in group[:_EXAMPLES]] for group in groups["text"].head(_EXAMPLES)
        ]
    return found


def _text(column: PreparedColumn, value: Any) -> str:
    if column.kind == "datetime":
        return timestamps.format_microseconds(float(value))
    if column.kind == "boolean":
        return "true" if value else "false"
    return _cut(f"{value:.15g}" if isinstance(value, float) else str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
