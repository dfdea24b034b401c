"""Fitted preprocessing: packages whose task is "transform", compiled or by scikit-learn itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import IntegrityError, InvalidInput
from clewline.flow.values.trusted import load_skops
from clewline.model.runtime import onnx, sklearn
from clewline.model.runtime.encoding import KEY, Encoder, Encoding
from clewline.model.runtime.frames import frame_of
from clewline.model.runtime.outputs import stack_rows, take_rows
from clewline.model.runtime.sklearn import Call
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

FEATURES = "features"
"""Name of the compiled model's one output: float64 of shape (n, fields of the output)."""


class OnnxTransformRuntime:
    """Loads `model.onnx` that gives the fields of a transform, all of them numbers."""

    name = "onnx-transform"

    def load(self, files: Mapping[str, bytes], signature: Signature) -> FittedTransformer:
        """
        Load compiled preprocessing.

        Raises:
            IntegrityError: The file is missing, or is not one that we compiled.
        """
        if onnx.MODEL not in files:
            raise IntegrityError(f"The package has no {onnx.MODEL}.", _AGAIN)
        session = onnx.open_session(files[onnx.MODEL])
        stated = session.get_modelmeta().custom_metadata_map.get(KEY)
        if stated is None or [output.name for output in session.get_outputs()] != [FEATURES]:
            raise IntegrityError(f"{onnx.MODEL} is no preprocessing that we compiled.", _AGAIN)
        encoding = msgspec.json.decode(stated, type=Encoding)
        encoder = Encoder(encoding, signature)

        def change(columns: Columns) -> Columns:
            (found,) = session.run([FEATURES], encoder.inputs(columns))
            return Columns(found, np.empty((len(found), 0), dtype=object))

        return FittedTransformer(change, encoding.rows_per_call)


class SklearnTransformRuntime:
    """Loads `model.skops` with our own list of trusted types."""

    name = "sklearn-transform"

    def load(self, files: Mapping[str, bytes], signature: Signature) -> FittedTransformer:
        """
        Load the fitted transformer itself.

        Raises:
            IntegrityError: A file is missing, is not what it should be, or holds a type
                that we do not trust.
        """
        if missing := {sklearn.MODEL, sklearn.CALL} - set(files):
            raise IntegrityError(f"The package has no {', '.join(sorted(missing))}.", _AGAIN)
        try:
            call = msgspec.json.decode(files[sklearn.CALL], type=Call)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IntegrityError(f"{sklearn.CALL} cannot be read: {error}.", _AGAIN) from error
        model = load_skops(files[sklearn.MODEL])

        def change(columns: Columns) -> Columns:
            return transformed(model, frame_of(columns, signature, call.layout), signature)

        return FittedTransformer(change, call.rows_per_call)


_AGAIN = "Register the preprocessing again."


class FittedTransformer:
    """Loaded preprocessing behind the contract of `Transformer`."""

    def __init__(self, change: Callable[[Columns], Columns], rows_per_call: int | None) -> None:
        self._change: Callable[[Columns], Columns] | None = change
        self._size = rows_per_call

    def transform(self, columns: Columns) -> Columns:
        """
        Transform rows.

        Raises:
            InvalidInput: The fitted transformer refuses a row, such as a level that its
                encoder was told to refuse.
        """
        if self._change is None:
            raise RuntimeError("The transformer was closed.")
        if self._size is None or len(columns) <= self._size:
            return self._change(columns)
        starts = range(0, len(columns), self._size)
        return stack_rows(
            [self._change(take_rows(columns, slice(i, i + self._size))) for i in starts]
        )

    def close(self) -> None:
        """Free what was loaded."""
        self._change = None


def transformed(model: Any, frame: Any, signature: Signature) -> Columns:
    """
    Transform a frame by a fitted transformer.

    Raises:
        InvalidInput: It refuses a row.
    """
    try:
        found = model.transform(frame)
    except ValueError as error:
        raise InvalidInput(
            f"The preprocessing refuses a row: {error}.",
            "Send values of the kinds and levels that it was fitted with.",
        ) from error
    return _columns(features_of(found), signature.transformed)


def features_of(found: Any) -> NDArray[Any]:
    """Give what `transform` gave, whatever its make, as an array of shape (n, features)."""
    dense = found.toarray() if hasattr(found, "toarray") else found
    array = np.asarray(dense.to_numpy() if hasattr(dense, "to_numpy") else dense)
    return array.reshape(len(array), -1)


def _columns(features: NDArray[Any], made: Signature) -> Columns:
    places = {field.name: place for place, field in enumerate(made.fields)}
    numbers = np.empty((len(features), len(made.numeric)), dtype=np.float64)
    for index, field in enumerate(made.numeric):
        numbers[:, index] = _floats(features[:, places[field.name]])
    texts = np.empty((len(features), len(made.textual)), dtype=object)
    for index, field in enumerate(made.textual):
        column = features[:, places[field.name]].tolist()
        texts[:, index] = [cell if isinstance(cell, str) else None for cell in column]
    return Columns(numbers, texts)


def _floats(column: NDArray[Any]) -> NDArray[np.float64]:
    if column.dtype != object:
        return column.astype(np.float64)
    return np.array([np.nan if cell is None else float(cell) for cell in column.tolist()])
