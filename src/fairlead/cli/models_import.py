"""`fairlead models import`: register a model from a file that somebody brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from fairlead.cli.output import emit, message
from fairlead.errors import InvalidInput

if TYPE_CHECKING:
    from fairlead.signature.field import Signature


def import_(
    file: Path,
    /,
    *,
    name: Annotated[str, Parameter(name="--name")],
    signature: Path | None = None,
    train: Path | None = None,
    test: Path | None = None,
    target: str | None = None,
) -> None:
    """
    Register a model from a file: ONNX as it is, or a booster in its library's own format.

    Parameters
    ----------
    file
        ONNX, LightGBM's text, XGBoost's JSON or CatBoost's cbm; told by content, not by name.
    name
        Of the model.
    signature
        A JSON file with fields and output, as signature.json of a package has them.
    train
        The table that it was trained on (CSV or Parquet): names, bounds and profile come from it.
    test
        Rows that it has not seen, to evaluate it on.
    target
        The column that it predicts.
    """
    from fairlead.model.register import register
    from fairlead.model.registry import ref_of

    registered = register(
        name,
        file,
        train=_table(train),
        test=_table(test),
        target=target,
        signature=_signature(signature),
    )
    emit(msgspec.to_builtins(registered), lambda _: message(f"registered {ref_of(registered)}"))


def _table(path: Path | None) -> Any:
    import polars as pl

    if path is None:
        return None
    if path.suffix == ".parquet":
        return pl.read_parquet(path)
    if path.suffix == ".csv":
        return pl.read_csv(path)
    raise InvalidInput(f"{path} is neither .csv nor .parquet.", "Save the table as one of them.")


def _signature(path: Path | None) -> Signature | None:
    from fairlead.signature.field import Signature

    if path is None:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Signature)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} is no signature: {error}.",
            'It looks like {"fields": [{"name": "x", "kind": "tensor", "dtype": "float32", '
            '"shape": [3]}], "output": {"name": "y", "task": "regression"}}.',
        ) from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
