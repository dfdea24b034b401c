"""The runtime of last resort: the scikit-learn estimator itself, loaded from skops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from clewline.errors import IntegrityError, InvalidInput, NotSupported
from clewline.evaluation.boosters import Boosted, refusals
from clewline.flow.values.trusted import load_skops
from clewline.model.runtime.frames import Layout, frame_of
from clewline.model.runtime.outputs import Outputs, join_outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Output, Signature

MODEL, CALL = "model.skops", "frame.json"


class Call(msgspec.Struct, frozen=True):
    """How the estimator is to be called: file `frame.json` beside the model."""

    layout: Layout
    rows_per_call: int | None = None  # 1 where its bits depend on the size of the batch


class SklearnRuntime:
    """Loads `model.skops` with our own list of trusted types."""

    name = "sklearn"

    def load(self, files: Mapping[str, bytes], signature: Signature) -> SklearnPredictor:
        """
        Load the estimator.

        Raises:
            IntegrityError: A file is missing, is not what it should be, or holds a type
                that we do not trust.
        """
        if missing := {MODEL, CALL} - set(files):
            raise IntegrityError(
                f"The package has no {', '.join(sorted(missing))}.", "Register the model again."
            )
        try:
            call = msgspec.json.decode(files[CALL], type=Call)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IntegrityError(
                f"{CALL} cannot be read: {error}.", "Register the model again."
            ) from error
        return SklearnPredictor(load_skops(files[MODEL]), signature, call)


class SklearnPredictor:
    """An estimator behind the contract of `Predictor`."""

    def __init__(self, model: Any, signature: Signature, call: Call) -> None:
        self._model, self._signature, self._call = model, signature, call

    def predict(self, columns: Columns) -> Outputs:
        """
        Answer rows.

        Raises:
            InvalidInput: The estimator itself refuses a row, such as a level that its
                encoder was told to refuse.
        """
        size = self._call.rows_per_call
        if size is None or len(columns) <= size:
            return self._answer(columns)
        pieces = [slice(i, i + size) for i in range(0, len(columns), size)]
        return join_outputs([self._answer(take_rows(columns, piece)) for piece in pieces])

    def close(self) -> None:
        """Free the estimator."""
        self._model = None

    def _answer(self, columns: Columns) -> Outputs:
        if self._model is None:
            raise RuntimeError("The predictor was closed.")
        frame = frame_of(columns, self._signature, self._call.layout)
        try:
            return ask(self._model, frame, self._signature.output)
        except refusals() as error:
            raise InvalidInput(
                f"The model refuses a row: {error}.",
                "Send values of the kinds and levels that it was trained with.",
            ) from error


def ask(model: Any, frame: Any, output: Output) -> Outputs:
    """Answer a frame by an estimator, labels as indices into the signature's."""
    if output.task == "regression":
        values = np.asarray(model.predict(frame), dtype=np.float64)
        if values.size != len(values):
            raise NotSupported(
                f"The model gives {values.shape[1]} numbers to each row.",
                "Register one model a target.",
            )
        return Outputs(values=values.reshape(-1))
    order = label_order(model.classes_, output)
    places = {plain(label): place for place, label in enumerate(output.labels or ())}
    known = model.predict_proba(frame) if isinstance(model, Boosted) else None
    said = model.predict(frame) if known is None else model.labels_of(known)
    said = np.asarray(said).reshape(-1)
    choices = np.array([places[plain(label)] for label in said], dtype=np.int64)
    if not hasattr(model, "predict_proba"):
        return Outputs(choices=choices)
    shares = np.asarray(model.predict_proba(frame) if known is None else known, dtype=np.float64)
    return Outputs(choices=choices, probabilities=np.ascontiguousarray(shares[:, order]))


def label_order(classes: Any, output: Output) -> list[int]:
    """
    Give the place of each of the signature's labels among an estimator's classes.

    Raises:
        InvalidInput: The two are not the same labels.
    """
    known = [plain(label) for label in classes]
    wanted = [plain(label) for label in output.labels or ()]
    if sorted(map(repr, known)) != sorted(map(repr, wanted)):
        raise InvalidInput(
            f"The model answers {known}, and the column {output.name!r} holds {wanted}.",
            "Pass the target and the tables that the model was trained on.",
        )
    return [known.index(label) for label in wanted]


def plain(label: Any) -> Any:
    """Give a label as a plain Python value."""
    return label.item() if isinstance(label, np.generic) else label
