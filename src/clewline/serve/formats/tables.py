"""
Tables that Polars decodes (Arrow and Parquet), as columns of values.

Polars allocates what the metadata of a body says, and a failed allocation ends the process: a
guard looks at the metadata of every batch or page before. Polars is imported when the first
body is decoded. NaN is null, as in every table.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from clewline.errors import BodyTooLarge, FieldProblem, MalformedInput
from clewline.serve.formats.body_format import RequestRows
from clewline.serve.formats.columns import (
    read_details,
    require_count,
    rows_from_columns,
    take_entities,
)
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field_rules import FieldRule, printable_text

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")
FIRST_MICROS, END_MICROS = -62_135_596_800e6, 253_402_300_800e6
"""Since the epoch: the years 1 to 9999."""
DECODED_BYTES = 64 << 20
"""The most bytes that the columns of one body may have when they are decoded."""
DECODED_VALUES = 16 << 20
"""The most values in them, with nulls and elements of lists."""


class TableFormat:
    """
    Reads tables of one kind.

    Args:
        what: The name of the kind in errors.
        guard: Called with a body and the most rows: refuses what would decode to too much.
        decode: Given Polars and a body as a file, returns the table.
    """

    def __init__(
        self,
        what: str,
        guard: Callable[[bytes, int], None],
        decode: Callable[[Any, bytes, io.BytesIO], pl.DataFrame],
    ) -> None:
        self._what, self._guard, self._decode = what, guard, decode

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a body."""
        frame = self._frame(body, max_rows)
        require_count(frame.height, max_rows)
        named = read_details(detail).entities
        rules = {rule.field.name: rule for rule in checker.rules}
        columns: dict[str, Sequence[Any]] = {}
        problems = []
        for name in frame.columns:
            rule = rules.get(name)
            if rule is None and name != named:
                columns[name] = ()
            elif rule is not None and not _may_hold(frame[name], rule):
                problems.append(FieldProblem(0, name, str(frame[name].dtype), rule.expected))
            else:
                columns[name] = _values(frame[name])
        if problems:
            raise refused_rows(problems, frame.height)
        entities = take_entities(columns, named, checker)
        return rows_from_columns(columns, frame.height, checker, max_rows, entities)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Return each row as a JSON object; what JSON does not have, as a string."""
        frame = self._frame(body, DECODED_VALUES)
        columns = {name: _values(frame[name]) for name in frame.columns}
        return [
            msgspec.json.encode(dict(zip(columns, row, strict=True)), enc_hook=str)
            for row in zip(*columns.values(), strict=True)
        ]

    def _frame(self, body: bytes, max_rows: int) -> pl.DataFrame:
        self._guard(body, max_rows)
        import polars as pl

        return _decoded(lambda: self._decode(pl, body, io.BytesIO(body)), self._what)


def malformed_table(what: str, reason: str) -> MalformedInput:
    """Return the error for a body that is no table of a kind."""
    return MalformedInput(f"The body is not {what}: {reason}.", f"Send {what}, whole.")


def require_small(values: int, size: int) -> None:
    """
    Accept a table of so many values and bytes.

    Raises:
        BodyTooLarge: They are more than is decoded.
    """
    if values > DECODED_VALUES or size > DECODED_BYTES:
        raise too_large()


def too_large() -> BodyTooLarge:
    """Return the error for a body that decodes to more than is read."""
    return BodyTooLarge(
        f"Decoded, the body is over {DECODED_BYTES} bytes or {DECODED_VALUES} values.",
        "Send fewer rows at once.",
    )


def _decoded(decode: Callable[[], T], what: str) -> T:
    """Let Polars decode. A panic of Polars is not an `Exception`, and counts as a refusal too."""
    try:
        return decode()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise malformed_table(what, str(error).split("\n")[0][:200]) from error


def _may_hold(series: pl.Series, rule: FieldRule) -> bool:
    """Return whether lists hold no more elements than tensors of the field's shape would."""
    if rule.field.kind != "tensor":
        return True
    most = min(len(series) * prod(rule.field.shape or ()), DECODED_VALUES)
    return _flattened(series, most) is not None


def _flattened(series: pl.Series, most: int) -> pl.Series | None:
    """Return the elements inside lists of lists; None if there are more than `most`."""
    import polars as pl

    while isinstance(series.dtype, pl.List | pl.Array):
        if isinstance(series.dtype, pl.Array):
            total = len(series) * (series.dtype.size or 0)
        else:
            total = int(series.list.len().sum() or 0)
        if total > most:
            return None
        if not total:
            return series.clear()
        series = series.explode()
    return series


def _values(series: pl.Series) -> list[Any]:
    """Return the values of a column; a NaN is None, and a moment that is refused is a string."""
    import polars as pl

    _require_small_values(series)
    if series.dtype.is_float():
        series = series.fill_nan(None)
    if isinstance(series.dtype, pl.Datetime | pl.Date):
        count = series.to_physical()
        unit = getattr(series.dtype, "time_unit", "d")
        micros = count.cast(pl.Float64) * {"d": 86_400e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}[unit]
        if (
            # A datetime would drop the nanoseconds, and has the years 1 to 9999 alone.
            (series.dtype == pl.Datetime("ns") and (count % 1000 != 0).any())
            or not micros.is_between(FIRST_MICROS, END_MICROS, closed="left").all()
        ):
            return count.cast(pl.String).to_list()
        if getattr(series.dtype, "time_zone", None):
            # In its zone, a moment may be in the year 10,000 or have an offset with seconds,
            # which RFC 3339 cannot write.
            series = series.dt.convert_time_zone("UTC")
    return _decoded(series.to_list, "table of values that Python has")


def _require_small_values(series: pl.Series) -> None:
    """Raise if the Python values of a column take much: views may share their bytes."""
    import polars as pl

    flat = _flattened(series, DECODED_VALUES)
    if flat is None:
        raise too_large()
    dtype = flat.dtype
    if isinstance(dtype, pl.Struct):
        raise MalformedInput(
            f"The column {printable_text(series.name)!r} holds structs.",
            "Send one column per field.",
        )
    if isinstance(dtype, pl.Categorical | pl.Enum):
        flat, dtype = flat.cast(pl.String), pl.String()
    if dtype == pl.String:
        require_small(0, int(flat.str.len_bytes().sum()))
    elif dtype == pl.Binary:
        require_small(0, int(flat.bin.size().sum()))
