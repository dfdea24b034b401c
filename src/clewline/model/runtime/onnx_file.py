"""ONNX files that somebody brought, executed as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import IntegrityError, InvalidInput
from clewline.model.runtime.onnx import MODEL, open_session
from clewline.model.runtime.outputs import Outputs, join_outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

CALL = "call.json"


class Input(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input: a scalar field, several as the columns of a matrix, or a tensor of its own."""

    name: str
    kind: Literal["column", "matrix", "tensor"]
    dtype: str  # of NumPy; "object" for texts
    fields: tuple[str, ...]
    flat: bool = False  # a column of shape (n,), not (n, 1)


class FileCall(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How fields become inputs, and outputs answers: file `call.json` beside the model."""

    inputs: tuple[Input, ...]
    label: str | None = None  # the output that holds the label of each row
    probabilities: str | None = None  # (n, labels), or a dictionary a row
    value: str | None = None
    tensor: str | None = None
    rows_per_call: int | None = None  # 1 where the batch is fixed, or bits depend on its size


class OnnxFileRuntime:
    """Loads `model.onnx` as it was brought: one thread, no arena."""

    name = "onnx-file"

    def load(self, files: Mapping[str, bytes], signature: Signature) -> OnnxFilePredictor:
        """
        Load the model.

        Raises:
            IntegrityError: A file is missing, or is not what it should be.
        """
        if missing := {MODEL, CALL} - set(files):
            raise IntegrityError(
                f"The package has no {', '.join(sorted(missing))}.", "Register the model again."
            )
        try:
            call = msgspec.json.decode(files[CALL], type=FileCall)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IntegrityError(
                f"{CALL} cannot be read: {error}.", "Register the model again."
            ) from error
        return OnnxFilePredictor(open_session(files[MODEL]), signature, call)


class OnnxFilePredictor:
    """A brought model behind the contract of `Predictor`."""

    def __init__(self, session: Any, signature: Signature, call: FileCall) -> None:
        self._session, self._signature, self._call = session, signature, call
        self._numbers = {field.name: i for i, field in enumerate(signature.numeric)}
        self._texts = {field.name: i for i, field in enumerate(signature.textual)}
        wanted = (call.label, call.probabilities, call.value, call.tensor)
        self._names = [name for name in wanted if name is not None]

    def predict(self, columns: Columns) -> Outputs:
        """
        Answer rows.

        Raises:
            InvalidInput: The model itself refuses a row.
        """
        size = self._call.rows_per_call
        if size is None or len(columns) <= size:
            return self._answer(columns)
        starts = range(0, len(columns), size)
        return join_outputs([self._answer(take_rows(columns, slice(i, i + size))) for i in starts])

    @property
    def tells_probabilities(self) -> bool:
        """Whether it answers with probabilities."""
        return self._call.probabilities is not None

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _answer(self, columns: Columns) -> Outputs:
        if self._session is None:
            raise RuntimeError("The predictor was closed.")
        feed = {given.name: self._array(given, columns) for given in self._call.inputs}
        try:
            found = self._session.run(self._names, feed)
        except Exception as error:  # onnxruntime's own errors share no public base class
            first = (str(error).strip().splitlines() or [repr(error)])[0]
            raise InvalidInput(
                f"The model refuses a row: {first}", "Send values that it was trained with."
            ) from error
        return self._outputs(dict(zip(self._names, found, strict=True)), len(columns))

    def _array(self, given: Input, columns: Columns) -> NDArray[Any]:
        if given.kind == "tensor":
            return columns.tensors[given.fields[0]].astype(given.dtype, copy=False)
        places = [self._numbers.get(name, self._texts.get(name, 0)) for name in given.fields]
        source = columns.texts if given.dtype == "object" else columns.numbers
        values = source[:, places].astype(given.dtype)
        return values.reshape(-1) if given.flat else values

    def _outputs(self, found: dict[str, Any], rows: int) -> Outputs:
        call, output = self._call, self._signature.output
        if call.tensor is not None:
            return Outputs(
                tensor=np.asarray(found[call.tensor]).reshape(rows, *(output.shape or ()))
            )
        if call.value is not None:
            return Outputs(values=np.asarray(found[call.value], np.float64).reshape(rows))
        labels = list(output.labels or ())
        shares = None
        if call.probabilities is not None:
            shares = shares_of(found[call.probabilities], labels)
        if call.label is None:
            assert shares is not None
            return Outputs(choices=shares.argmax(axis=1).astype(np.int64), probabilities=shares)
        places = {label: place for place, label in enumerate(labels)}
        said = np.asarray(found[call.label]).reshape(-1).tolist()
        choices = np.array([places[label] for label in said], dtype=np.int64)
        return Outputs(choices=choices, probabilities=shares)


def shares_of(found: Any, labels: list[Any]) -> NDArray[np.float64]:
    """Give probabilities as a matrix in the order of the labels, from one or from dictionaries."""
    if isinstance(found, list):
        rows = [[row[label] for label in labels] for row in found]
        return np.array(rows, dtype=np.float64).reshape(-1, len(labels))
    return np.ascontiguousarray(np.asarray(found, dtype=np.float64))
