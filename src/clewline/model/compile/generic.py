"""
Any other estimator: encoders, imputers and scalers by our own lowering, the rest by skl2onnx.

skl2onnx gets float64 columns. It has no kernel for numeric imputers in float64, turns
None into the text 'None', and does not convert text imputers that meet nulls; so
whatever we can lower never reaches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from clewline.evaluation.boosters import library_of
from clewline.evaluation.texts import takes_texts
from clewline.model.compile.fold import fold
from clewline.model.compile.form import Form, NotLowered, OnnxForm
from clewline.model.compile.graph import (
    OPSET,
    Graph,
    code_fields,
    emit_answers,
    encoding_of,
    matrix,
    split_codes,
)
from clewline.model.compile.lowering import in_order, levels_of, lower, tracks_of
from clewline.model.compile.original import Original, final_and_steps
from clewline.model.compile.track import Number, Op, Track
from clewline.model.runtime.encoding import Encoding
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ML_OPSET = 3  # the newest that skl2onnx writes trees for
NAME = "lowered, then skl2onnx"

Precision = Literal["float64", "float32 in float64", "float32"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Lowered columns, and what has no lowering and takes them all."""

    tracks: list[Track]
    rest: Any = None


def generic(original: Original, train: Columns) -> Iterator[Form]:
    """Give the form in float64, then the one in float32; none of a model that takes texts."""
    final, steps = final_and_steps(original.model)
    if takes_texts(original.model):
        return
    if library := library_of(final):
        raise NotLowered(f"trees of {library} are lowered by reading them, or not at all")
    levels = levels_of(original.signature, train, steps)
    tracks = tracks_of(original.signature, original.layout, levels)
    tracks = in_order(tracks, original.signature, [*steps, final][0])
    pieces, left = _pieces(steps, tracks)
    rest = _chain([*left, final])
    rounds = _holds_trees(final)  # trees round what they are given to float32
    precisions: tuple[Precision, ...] = ("float32 in float64",) if rounds else ("float64",)
    for precision in (*precisions, "float32"):
        yield Generic(original.signature, pieces, rest, levels, precision)


class Generic(OnnxForm):
    """A model whose last steps skl2onnx converted."""

    thresholds: list[tuple[int, float]]

    def __init__(
        self,
        signature: Signature,
        pieces: list[Piece],
        rest: Any,
        levels: list[tuple[str, ...]],
        precision: Precision,
    ) -> None:
        self.name = NAME if precision == "float64" else f"{NAME}, {precision}"
        self.thresholds = _splits(rest, pieces)
        self._signature, self._pieces, self._rest = signature, pieces, rest
        self._levels, self._precision = levels, precision
        self._all = [track for piece in pieces for track in piece.tracks]

    def encoding(self, rows_per_call: int | None = None) -> Encoding:
        """State the inputs."""
        return encoding_of(self._all, self._signature, self._levels, rows_per_call)

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Write the ONNX file."""
        graph = Graph(ML_OPSET)
        codes = split_codes(graph, code_fields(self._all))
        parts = [self._piece(graph, piece, codes) for piece in self._pieces]
        rows = graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
        if self._precision != "float64":
            rows = graph.add("Cast", rows, to=TensorProto.FLOAT)
        if self._precision == "float32 in float64":
            rows = graph.add("Cast", rows, to=TensorProto.DOUBLE)
        answers = _inlined(graph, self._rest, rows, single=self._precision == "float32")
        self._answers(graph, answers)
        return graph.model(self.encoding(rows_per_call))

    def _piece(self, graph: Graph, piece: Piece, codes: dict[int, str]) -> str:
        rows = matrix(graph, piece.tracks, self._signature, codes)
        return rows if piece.rest is None else _inlined(graph, piece.rest, rows)[0]

    def _answers(self, graph: Graph, answers: list[str]) -> None:
        if self._signature.output.task == "regression":
            emit_answers(graph, self._signature, values=_double(graph, answers[0]))
            return
        final, _ = final_and_steps(self._rest)
        choices = choices_of(graph, answers[0], final.classes_)
        shares = _double(graph, answers[1]) if hasattr(final, "predict_proba") else None
        emit_answers(graph, self._signature, final.classes_, choices=choices, shares=shares)


def _pieces(steps: list[Any], tracks: list[Track]) -> tuple[list[Piece], list[Any]]:
    """Lower the first steps as far as it goes; gives columns, and the steps that are left."""
    for place, step in enumerate(steps):
        try:
            tracks = lower(step, tracks)
        except NotLowered:
            if type(step).__name__ == "ColumnTransformer" and place == 0:
                return _split(step, tracks), steps[1:]
            _must_be_numbers(tracks)
            return [Piece(tracks)], steps[place:]
    return [Piece(tracks)], []


def _split(transformer: Any, tracks: list[Track]) -> list[Piece]:
    """Lower each part of a ColumnTransformer by itself, and leave to skl2onnx what has none."""
    if transformer.transformer_weights:
        raise NotLowered("ColumnTransformer with transformer_weights has no lowering")
    pieces = []
    for name, inner, _ in transformer.transformers_:
        chosen = [tracks[index] for index in transformer._transformer_to_input_indices[name]]
        if not chosen or (isinstance(inner, str) and inner == "drop"):
            continue
        pieces += [Piece(chosen)] if isinstance(inner, str) else [_part(inner, chosen)]
    return pieces


def _part(inner: Any, tracks: list[Track]) -> Piece:
    is_pipeline = type(inner).__name__ == "Pipeline"
    steps = [step for _, step in inner.steps] if is_pipeline else [inner]
    lowered, left = _pieces(steps, tracks)
    return Piece(lowered[0].tracks, _chain(left) if left else None)


def _must_be_numbers(tracks: list[Track]) -> None:
    for track in tracks:
        if not isinstance(track, Number) and not getattr(track, "encoded", False):
            raise NotLowered(getattr(track, "reason", "a text meets a step that has no lowering"))


def _chain(steps: list[Any]) -> Any:
    from sklearn.pipeline import Pipeline

    if len(steps) == 1:
        return steps[0]
    return Pipeline([(f"step{place}", step) for place, step in enumerate(steps)])


def _inlined(graph: Graph, model: Any, rows: str, *, single: bool = False) -> list[str]:
    return graph.inline(_converted(model, single), {"x": rows})


def _converted(model: Any, single: bool) -> onnx.ModelProto:
    final, _ = final_and_steps(model)
    plain = {id(final): {"zipmap": False}} if hasattr(final, "classes_") else {}
    try:
        return _convert(model, single, plain)
    except NotLowered as error:
        if "zipmap" not in str(error):
            raise
        return _convert(model, single, {})  # it gives no dictionaries, and no choice


def _convert(model: Any, single: bool, options: dict[int, Any]) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    kind = (FloatTensorType if single else DoubleTensorType)([None, None])
    opsets = {"": OPSET, "ai.onnx.ml": ML_OPSET}
    try:
        found: onnx.ModelProto = convert_sklearn(
            model, initial_types=[("x", kind)], options=options, target_opset=opsets
        )
    except Exception as error:  # skl2onnx's errors have no common class
        lines = str(error).strip().splitlines() or [repr(error)]
        raise NotLowered(f"skl2onnx: {lines[0]}") from error
    return found


def choices_of(graph: Graph, labels: str, classes: Any) -> str:
    """Turn an estimator's labels into places among its classes."""
    known = [label.item() if isinstance(label, np.generic) else label for label in classes]
    places = list(range(len(known)))
    if isinstance(known[0], str):
        keys: dict[str, Any] = {"keys_strings": known}
    else:
        labels = graph.add("Cast", labels, to=TensorProto.INT64)
        keys = {"keys_int64s": [int(label) for label in known]}
    return graph.add(
        "LabelEncoder", labels, domain="ai.onnx.ml", values_int64s=places, default_int64=-1, **keys
    )


def _double(graph: Graph, value: str) -> str:
    return graph.add("Cast", value, to=TensorProto.DOUBLE)


def _holds_trees(model: Any) -> bool:
    return any(True for _ in _trees_in(model))


def _trees_in(model: Any, columns: NDArray[np.int64] | None = None) -> Iterator[tuple[Any, Any]]:
    """Find the trees inside an estimator, each with the columns that it was given, None for all."""
    if hasattr(model, "tree_"):
        yield model.tree_, columns
    inner = getattr(model, "estimators_", ())
    given = getattr(model, "estimators_features_", None) or [columns] * len(inner)
    for part, chosen in zip(inner, given, strict=True):
        for one in part if isinstance(part, np.ndarray) else [part]:
            yield from _trees_in(one, chosen)


def _splits(rest: Any, pieces: list[Piece]) -> list[tuple[int, float]]:
    """Carry the splits of trees that skl2onnx converts back to raw fields, where that goes."""
    final, steps = final_and_steps(rest)
    if steps or any(piece.rest is not None for piece in pieces):
        return []
    tracks = [track for piece in pieces for track in piece.tracks]
    splits: set[tuple[int, float]] = set()
    for tree, columns in _trees_in(final):
        inner = tree.children_left >= 0
        feature = tree.feature[inner] if columns is None else columns[tree.feature[inner]]
        for index in np.unique(feature).tolist():
            track = tracks[index]
            if isinstance(track, Number) and track.monotone:
                raw = fold(track.then(Op("float32")), tree.threshold[inner][feature == index])
                splits |= {(track.field, v) for v in raw[np.isfinite(raw)].tolist()}
    return sorted(splits)
