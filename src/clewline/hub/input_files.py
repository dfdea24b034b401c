"""The files beside a model's file: a signature that is stated, and rows that are a sample."""

from __future__ import annotations

import hashlib
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


def read(signature: Path | None, sample: Path | None) -> dict[str, Any]:
    """
    Read both, as `register` takes them.

    Raises:
        InvalidInput: A file cannot be read, or is not what it should be.
    """
    found: dict[str, Any] = {}
    if signature is not None:
        found["signature"] = stated(signature)
    if sample is not None:
        found["train"] = table(sample)
    return found


def stated(path: Path) -> Signature:
    """
    Read a signature from JSON or YAML.

    Raises:
        InvalidInput: It is none; shows one.
    """
    data = _bytes(path)
    try:
        if path.suffix in (".yaml", ".yml"):
            return msgspec.convert(config.parse(data, path, EXAMPLE), Signature)
        return msgspec.json.decode(data, type=Signature)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no signature: {error}.", EXAMPLE) from error


def table(path: Path) -> Any:
    """
    Read rows from CSV or Parquet, as a table of Polars.

    Raises:
        InvalidInput: It is neither, or cannot be read.
    """
    import io

    import polars as pl

    readers: dict[str, Any] = {".parquet": pl.read_parquet, ".csv": pl.read_csv}
    if path.suffix not in readers:
        raise InvalidInput(
            f"{path} is neither .csv nor .parquet.", "Save the table as one of them."
        )
    try:
        return readers[path.suffix](io.BytesIO(_bytes(path)))
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error


def sha256(path: Path) -> str:
    """Digest a file, as a manifest's origin names it."""
    return hashlib.sha256(_bytes(path)).hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
