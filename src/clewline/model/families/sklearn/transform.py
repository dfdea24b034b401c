"""Fitted preprocessing: a transformer, or a pipeline without its last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from clewline.errors import NotSupported
from clewline.model.compile.candidate_forms import (
    FEATURES,
    CandidateForm,
    InputEncoding,
    NotConvertible,
    OnnxForm,
)
from clewline.model.compile.compiler import OriginalModel, compile_model
from clewline.model.compile.lowered_columns import LoweredColumn, raw_columns
from clewline.model.compile.onnx_graph import OnnxGraph, encoding_of
from clewline.model.families import packaging
from clewline.model.families.estimators import SKOPS_MODEL
from clewline.model.families.family import PackageContents, RegistrationInputs
from clewline.model.families.sklearn.lowering import known_texts, lower
from clewline.model.runtime.frames import original_frame
from clewline.model_families import fitted_names
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.signature.infer import infer_fields

ML_OPSET = 3
LOWERED = "preprocessing"


def convert_transform(model: Any, inputs: RegistrationInputs) -> PackageContents:
    """Convert preprocessing, or keep it if no converted form is equal; as `Family.convert`."""
    packaging.require_train(inputs)
    if getattr(model, "n_features_in_", None) is None:
        raise NotSupported(f"{type(model).__name__} was not fitted.", "Fit it first.")
    names = packaging.fitted_columns(model, inputs.train, inputs.target)
    seen = packaging.select_columns(inputs.train, names)
    is_named = fitted_names(model) is not None
    frame: Any = packaging.frame_kind(inputs.train) if is_named else "numpy"
    fields = infer_fields(seen)
    bare = Signature(fields=fields, output=Output(name="", task="transform"))
    try:
        features = features_of(model.transform(original_frame(seen, bare, frame)))
    except ValueError as error:
        raise NotSupported(
            f"The preprocessing refuses the rows that it was fitted on: {error}",
            "Fit steps whose transform() takes every row; scikit-learn checks some only then.",
        ) from error
    output = Output(name="", task="transform", fields=_output_fields(model, features, fields))
    signature = Signature(fields=fields, output=output)
    train, asked, rows, _, notes = packaging.split_rows(signature, inputs)
    compiled = compile_model(model, signature, test=asked, train=train, frame=frame)
    files = compiled.files | packaging.describing_files(signature, compiled, rows, None, inputs)
    return PackageContents(files, signature, compiled, notes, unstable=(SKOPS_MODEL,))


def _output_fields(model: Any, features: Any, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Return the fields of the output, named as the transformer names them."""
    import polars as pl

    name = type(model).__name__
    given = None if fitted_names(model) is not None else [f.name for f in fields]
    try:
        names = [str(each) for each in model.get_feature_names_out(given)]
    except (AttributeError, ValueError) as error:
        raise NotSupported(
            f"{name} does not name the features that it gives: {error}.",
            "Use transformers with get_feature_names_out; FunctionTransformer takes "
            'feature_names_out="one-to-one".',
        ) from error
    if len(names) != features.shape[1]:
        raise NotSupported(
            f"{name} names {len(names)} features and gives {features.shape[1]}.",
            "Its get_feature_names_out must name what its transform gives.",
        )
    columns = {}
    for place, each in enumerate(names):
        cells = features[:, place].tolist()
        is_text = any(isinstance(cell, str) for cell in cells)
        kept = [cell if cell == cell else None for cell in cells]
        columns[each] = pl.Series(kept, dtype=pl.String if is_text else pl.Float64, strict=is_text)
    return infer_fields(pl.DataFrame(columns))


def lowered_transforms(original: OriginalModel, train: Columns) -> Iterator[CandidateForm]:
    """Yield the form of preprocessing as operations on single columns."""
    signature, model = original.signature, original.model
    if signature.transformed.textual:
        raise NotConvertible("it gives strings")
    columns, levels = raw_columns(
        signature,
        original.layout,
        train,
        names=fitted_names(model),
        known_texts=known_texts([model]),
    )
    yield LoweredTransform(signature, lower(model, columns), levels)


class LoweredTransform(OnnxForm):
    """Preprocessing as operations on single columns."""

    name = LOWERED
    distributions: tuple[str, ...] = ("onnx", "onnxruntime", "scikit-learn", "numpy")

    def __init__(
        self,
        signature: Signature,
        columns: list[LoweredColumn],
        levels: list[tuple[str, ...]],
    ) -> None:
        self.thresholds = []
        self._signature, self._columns, self._levels = signature, columns, levels

    def encoding(self, rows_per_call: int | None = None) -> InputEncoding:
        """Return the inputs."""
        return encoding_of(self._columns, self._signature, self._levels, rows_per_call)

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Return the ONNX file."""
        graph = OnnxGraph(self._signature, self._columns, ML_OPSET)
        features = graph.add("Identity", graph.matrix(self._columns))
        graph.output(FEATURES, features, TensorProto.DOUBLE, [None, len(self._columns)])
        return graph.model(self.encoding(rows_per_call))


def transformed_columns(model: Any, frame: Any, signature: Signature) -> Columns:
    """Transform a frame by a fitted transformer; raises ValueError if it refuses a row."""
    result = signature.transformed
    # One row may come back as a vector, such as SparsePCA's.
    features = features_of(model.transform(frame)).reshape(-1, len(result.fields))
    places = {field.name: place for place, field in enumerate(result.fields)}
    numbers = np.empty((len(features), len(result.numeric)), dtype=np.float64)
    for index, field in enumerate(result.numeric):
        column = features[:, places[field.name]]
        if column.dtype == object:
            column = np.array([np.nan if cell is None else float(cell) for cell in column.tolist()])
        numbers[:, index] = column
    texts = np.empty((len(features), len(result.textual)), dtype=object)
    for index, field in enumerate(result.textual):
        cells = features[:, places[field.name]].tolist()
        texts[:, index] = [cell if isinstance(cell, str) else None for cell in cells]
    return Columns(numbers, texts)


def features_of(found: Any) -> NDArray[Any]:
    """Return what `transform` gave, of whatever type, as an array of shape (n, features)."""
    dense = found.toarray() if hasattr(found, "toarray") else found
    array = np.asarray(dense.to_numpy() if hasattr(dense, "to_numpy") else dense)
    return array.reshape(len(array), -1)
