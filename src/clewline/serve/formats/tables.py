"""
Tables that Polars has decoded, as columns of values.

Polars is imported here, at the first call; it is told of no more than a guard
has counted in the metadata before. NaN is null, as in every table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from clewline.errors import BodyTooLarge, FieldProblem, MalformedInput
from clewline.serve.formats import RequestRows
from clewline.serve.formats.columns import (
    Details,
    require_count,
    rows_of,
    take_entities,
    with_entities,
)
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field_rules import FieldRule, printable_text
from clewline.signature.json_rows import NameSuggestions

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")
FIRST_MICROS, LAST_MICROS = -62_135_510_400e6, 253_402_214_400e6
"""Since the epoch: the years 1 to 9999 less a day, so that any offset may be added."""
DECODED_BYTES = 64 << 20
"""What the columns of one body may come to when they are decoded."""
DECODED_VALUES = 16 << 20
"""Values in them, nulls and elements of lists too."""


def decoded(read: Callable[[], T], what: str) -> T:
    """
    Let Polars decode.

    Raises:
        MalformedInput: It refuses, or panics, which is no `Exception`.
    """
    try:
        return read()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        said = str(error).split("\n")[0][:200]
        raise MalformedInput(f"The body is no {what}: {said}.", f"Send {what}, whole.") from error


def too_large() -> BodyTooLarge:
    """Make the error for a body that unpacks to more than is read."""
    return BodyTooLarge(
        f"Decoded, the body is over {DECODED_BYTES} bytes or {DECODED_VALUES} values.",
        "Send fewer rows at once.",
    )


def rows_in(frame: pl.DataFrame, details: Details, checker: Checker, max_rows: int) -> RequestRows:
    """
    Check the rows of a table.

    Raises:
        MalformedInput, TooManyRows, InvalidInput: As `rows_of`.
        BodyTooLarge: Values come to more than `DECODED_BYTES`.
    """
    require_count(frame.height, max_rows)
    rules = {rule.field.name: rule for rule in checker.rules}
    problems = []
    columns: dict[str, Sequence[Any]] = {}
    for name in frame.columns:
        rule = rules.get(name)
        if rule is None and name != details.entities:
            columns[name] = ()
        elif rule is not None and rule.field.kind == "tensor":
            if not _may_be(frame[name], rule):
                problems.append(FieldProblem(0, name, str(frame[name].dtype), rule.expected))
                continue
            columns[name] = _values(frame[name])
        else:
            columns[name] = _values(frame[name])
    if problems:
        raise refused_rows(problems, frame.height)
    entities = take_entities(columns, details.entities, checker)
    return with_entities(rows_of(columns, frame.height, checker, max_rows), entities)


def objects(frame: pl.DataFrame) -> list[bytes]:
    """Write each row as a JSON object; what JSON does not have, as text."""
    columns = {name: _values(frame[name]) for name in frame.columns}
    return [
        msgspec.json.encode(dict(zip(columns, row, strict=True)), enc_hook=str)
        for row in zip(*columns.values(), strict=True)
    ]


def require_column(names: Sequence[str], column: str | None) -> None:
    """Raise unless the column of entities, if one is named, is there."""
    if column is not None and column not in names:
        hint = NameSuggestions(names).hint(column)
        raise MalformedInput(
            f"There is no column {printable_text(column)!r} of entities{hint}.",
            "?entities= names a column of the body.",
        )


def _may_be(series: pl.Series, rule: FieldRule) -> bool:
    """Tell whether lists hold no more elements than tensors of a shape would."""
    import polars as pl

    most = len(series) * prod(rule.field.shape or ())
    while isinstance(series.dtype, pl.List | pl.Array):
        if isinstance(series.dtype, pl.Array):
            total = len(series) * (series.dtype.size or 0)
        else:
            total = int(series.list.len().sum() or 0)
        if total > min(most, DECODED_VALUES):
            return False
        series = series.explode()
    return True


def _values(series: pl.Series) -> list[Any]:
    """Give the values of a column, a NaN as None."""
    import polars as pl

    _require_small(series)
    if series.dtype == pl.Datetime("ns") and (series.to_physical() % 1000 != 0).any():
        # A datetime would drop the nanoseconds; as texts they are refused.
        return series.to_physical().cast(pl.String).to_list()
    if series.dtype.is_float():
        series = series.fill_nan(None)
    return decoded(lambda: _listed(series), "table of values that Python has")


def _listed(series: pl.Series) -> list[Any]:
    """Give Python values; moments outside of the years 1 to 9999 as texts, which are refused."""
    import polars as pl

    if isinstance(series.dtype, pl.Datetime | pl.Date):
        unit = {"ns": 1000, "us": 1, "ms": 1 / 1000}.get(getattr(series.dtype, "time_unit", ""))
        count = series.to_physical()
        micros = count.cast(pl.Float64) * 86_400e6 if unit is None else count / unit
        if not micros.is_between(FIRST_MICROS, LAST_MICROS).all():
            return list(count.cast(pl.String).to_list())
    return list(series.to_list())


def _require_small(series: pl.Series) -> None:
    """Raise unless the Python values of a column come to little: views may share their bytes."""
    import polars as pl

    dtype = series.dtype
    if isinstance(dtype, pl.Categorical | pl.Enum):
        series, dtype = series.cast(pl.String), pl.String()
    if isinstance(dtype, pl.Struct):
        raise MalformedInput(
            f"The column {printable_text(series.name)!r} holds structs.", "Send one column a field."
        )
    size = 0
    if dtype == pl.String:
        size = int(series.str.len_bytes().sum())
    elif dtype == pl.Binary:
        size = int(series.bin.size().sum())
    elif isinstance(dtype, pl.List):
        size = int(series.list.len().sum() or 0)
        if size <= DECODED_VALUES and size:
            _require_small(series.explode())
    elif isinstance(dtype, pl.Array):
        size = len(series) * (dtype.size or 0)
        if size <= DECODED_VALUES and size:
            _require_small(series.explode())
    if size > DECODED_BYTES or (dtype.is_nested() and size > DECODED_VALUES):
        raise too_large()
