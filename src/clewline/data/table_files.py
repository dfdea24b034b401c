"""Tables from files: CSV, Parquet and Arrow."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clewline.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".arrow", ".feather", ".ipc")


def read_table(path: Path) -> pl.DataFrame:
    """
    Read a table from a file of the kind that its name says.

    All rows of a CSV decide the types of its columns: a column that holds anything but numbers
    is text.

    Args:
        path: Ends in .csv, .csv.gz, .parquet, .arrow, .feather or .ipc.

    Raises:
        InvalidInput: It is none of them, cannot be read, or holds no table.
    """
    import polars as pl

    readers: dict[str, Callable[[bytes], pl.DataFrame]] = {
        ".csv": _read_csv,
        ".csv.gz": lambda data: _read_csv(gzip.decompress(data)),
        ".parquet": lambda data: pl.read_parquet(io.BytesIO(data)),
    }
    name = path.name.lower()
    suffix = next((each for each in SUFFIXES if name.endswith(each)), None)
    if suffix is None:
        raise InvalidInput(
            f"{path} does not say by its name what kind of table it is.",
            f"Save the table as a file that ends in {', '.join(SUFFIXES)}.",
        )
    try:
        return readers.get(suffix, _read_arrow)(path.read_bytes())
    except pl.exceptions.NoDataError as error:
        raise InvalidInput(
            f"{path} is empty.", "Write a line with the names of columns."
        ) from error
    except (pl.exceptions.PolarsError, EOFError, gzip.BadGzipFile) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInput(
            f"{path} is not a table: {reason}.", f"Check that it is really {suffix}."
        ) from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}.") from error


def write_table(table: pl.DataFrame, path: Path) -> None:
    """
    Write a table to a file of the kind that its name says.

    Args:
        table: The table.
        path: Ends in .csv or .parquet. A file that is there is replaced.

    Raises:
        InvalidInput: It is neither, or cannot be written.
    """
    writers: dict[str, Callable[[io.BytesIO], object]] = {
        ".csv": table.write_csv,
        ".parquet": table.write_parquet,
    }
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise InvalidInput(
            f"{path} does not say by its name what kind of table it is.",
            f"Name a file that ends in {' or '.join(writers)}.",
        )
    data = io.BytesIO()
    writer(data)
    try:
        path.write_bytes(data.getvalue())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror or error}.") from error


def _read_csv(data: bytes) -> pl.DataFrame:
    import polars as pl

    return pl.read_csv(io.BytesIO(data), infer_schema_length=None)


def _read_arrow(data: bytes) -> pl.DataFrame:
    import polars as pl

    if data[:6] == b"ARROW1":
        return pl.read_ipc(io.BytesIO(data))
    return pl.read_ipc_stream(io.BytesIO(data))
