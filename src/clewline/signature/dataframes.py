"""Tables of any make (Polars, pandas, Arrow) behind one door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clewline.errors import InvalidInput

if TYPE_CHECKING:
    import narwhals as nw
    import numpy as np
    from numpy.typing import NDArray


def open_table(frame: Any) -> nw.DataFrame[Any]:
    """
    Look at a table through narwhals.

    Raises:
        InvalidInput: It is no eager table, or its columns have no usable names.
    """
    import narwhals as nw

    try:
        table: nw.DataFrame[Any] = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise InvalidInput(
            f"A {type(frame).__name__} is not a table.",
            "Pass a Polars or pandas DataFrame or an Arrow table; collect a lazy one first.",
        ) from error
    except nw.exceptions.DuplicateError as error:
        raise InvalidInput(f"Two columns have one name. {error}", "Rename one.") from error
    names = table.columns
    for name in names:
        if not isinstance(name, str):
            raise InvalidInput(
                f"A column is named {name!r}, which is no text.", "Rename it to a text."
            )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"Two columns are named {twice!r}.", "Rename one.")
    return table


def drop_column(frame: Any, column: str) -> Any:
    """Take a column away, such as the target; the table keeps its make."""
    table = open_table(frame)
    require_column(table, column)
    native: Any = table.drop(column).to_native()
    return native


def column_values(frame: Any, column: str) -> list[Any]:
    """Get a column as Python values; null, NaN and NaT are None."""
    table = open_table(frame)
    require_column(table, column)
    return cell_values(table[column])


def cell_values(series: nw.Series[Any]) -> list[Any]:
    """Get Python values; null, NaN and NaT are None."""
    return [
        None if absent else _plain(value)
        for value, absent in zip(series.to_list(), null_mask(series).tolist(), strict=True)
    ]


def _plain(value: Any) -> Any:
    """A Python value in place of a NumPy one, None in place of NaN."""
    if hasattr(value, "dtype") and not getattr(value, "shape", ()):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def column_floats(series: nw.Series[Any]) -> NDArray[np.float64]:
    """Get a column of numbers as float64, shape (n,), null as NaN; large integers may round."""
    import numpy as np

    missing = null_mask(series)
    if not missing.any():
        return np.asarray(series.to_numpy(), dtype=np.float64)
    numbers = np.array(series.fill_null(0).to_numpy(), dtype=np.float64)
    numbers[missing] = np.nan
    return numbers


def null_mask(series: nw.Series[Any]) -> NDArray[np.bool_]:
    """Where a column holds null (or NaN in pandas, where they are one), shape (n,)."""
    import numpy as np

    if not series.null_count():  # one call, where asking each cell is an expression of its own
        return np.zeros(len(series), dtype=np.bool_)
    return np.asarray(series.is_null().to_numpy(), dtype=np.bool_)


def require_column(table: nw.DataFrame[Any], column: str) -> None:
    """Raise InvalidInput, with the nearest name, unless the table has the column."""
    from clewline.signature.json_rows import NameSuggestions

    if column not in table.columns:
        hint = NameSuggestions(table.columns).hint(column)
        raise InvalidInput(f"The table has no column {column!r}{hint}.")
