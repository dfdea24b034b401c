"""Read the files that describe a model file: a stated signature, and sample rows."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import msgspec

from clewline import config
from clewline.errors import InvalidInput
from clewline.signature.field import Signature

EXAMPLE = (
    'It looks like {"fields": [{"name": "x", "kind": "tensor", "dtype": "float32", '
    '"shape": [3]}], "output": {"name": "y", "task": "regression"}}, as JSON or YAML.'
)


def read_signature(path: Path) -> Signature:
    """
    Read a signature from JSON or YAML.

    Raises:
        InvalidInput: It is not a signature; shows one.
    """
    data = _read(path)
    try:
        if path.suffix in (".yaml", ".yml"):
            return msgspec.convert(config.parse(data, path, EXAMPLE), Signature)
        return msgspec.json.decode(data, type=Signature)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a signature: {error}.", EXAMPLE) from error


def read_rows(path: Path) -> Any:
    """
    Read a Polars table from CSV or Parquet.

    Raises:
        InvalidInput: It is neither, or cannot be read.
    """
    import polars as pl

    readers: dict[str, Any] = {".parquet": pl.read_parquet, ".csv": pl.read_csv}
    if path.suffix not in readers:
        raise InvalidInput(
            f"{path} is neither .csv nor .parquet.", "Save the table as one of them."
        )
    try:
        return readers[path.suffix](io.BytesIO(_read(path)))
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error


def sha256(path: Path) -> str:
    """
    Return the SHA-256 of a file, as 64 hex characters.

    Raises:
        InvalidInput: The file cannot be read.
    """
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
