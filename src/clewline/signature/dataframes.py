"""Read Polars, pandas and Arrow tables in one way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clewline.errors import InvalidInput

if TYPE_CHECKING:
    import narwhals as nw
    import numpy as np
    from numpy.typing import NDArray


def open_table(frame: Any) -> nw.DataFrame[Any]:
    """
    Wrap a table with narwhals.

    Raises:
        InvalidInput: It is not an eager table, or two columns have one name, or a name is not
            a string.
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
    seen: set[str] = set()
    for name in table.columns:
        if not isinstance(name, str):
            raise InvalidInput(
                f"The name of the column {name!r} is not a string.", "Rename it to a string."
            )
        if name in seen:
            raise InvalidInput(f"Two columns are named {name!r}.", "Rename one.")
        seen.add(name)
    return table


def drop_column(frame: Any, column: str) -> Any:
    """
    Return a table of the same type without a column, such as the target.

    Raises:
        InvalidInput: There is no such column.
    """
    table = open_table(frame)
    require_column(table, column)
    native: Any = table.drop(column).to_native()
    return native


def column_values(frame: Any, column: str) -> list[Any]:
    """
    Return a column as Python values; null, NaN and NaT are None.

    Raises:
        InvalidInput: There is no such column.
    """
    table = open_table(frame)
    require_column(table, column)
    return cell_values(table[column])


def cell_values(series: nw.Series[Any]) -> list[Any]:
    """Return a series as Python values; null, NaN and NaT are None."""
    values = series.to_list()
    for place, absent in enumerate(null_mask(series).tolist()):
        value = values[place]
        if hasattr(value, "dtype") and not getattr(value, "shape", ()):
            value = value.item()  # a NumPy scalar
        is_nan = isinstance(value, float) and value != value
        values[place] = None if absent or is_nan else value
    return values


def column_floats(series: nw.Series[Any]) -> NDArray[np.float64]:
    """Return numbers as float64, shape (n,), null as NaN; large integers may be rounded."""
    import numpy as np

    missing = null_mask(series)
    filled = series.fill_null(0) if missing.any() else series
    numbers = np.asarray(filled.to_numpy(), dtype=np.float64)
    missing = missing | np.isnan(numbers)  # a table's NaN may have another sign
    return np.where(missing, np.nan, numbers) if missing.any() else numbers


def null_mask(series: nw.Series[Any]) -> NDArray[np.bool_]:
    """Return where a series holds null (in pandas also NaN, which is the same), shape (n,)."""
    import numpy as np

    if not series.null_count():  # one call; asking for each cell is a separate expression
        return np.zeros(len(series), dtype=np.bool_)
    return np.asarray(series.is_null().to_numpy(), dtype=np.bool_)


def require_column(table: nw.DataFrame[Any], column: str) -> None:
    """
    Check that the table has a column.

    Raises:
        InvalidInput: It has not; names the nearest.
    """
    from clewline.signature.json_rows import NameSuggestions

    if column not in table.columns:
        hint = NameSuggestions(table.columns).hint(column)
        raise InvalidInput(f"The table has no column {column!r}{hint}.")
