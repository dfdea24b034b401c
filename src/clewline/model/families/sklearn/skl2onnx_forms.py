"""
Forms that skl2onnx converts: any estimator over lowered columns, and vectorizers of texts.

skl2onnx gets float64 columns. It has no kernel for numeric imputers in float64, turns
None into the string 'None', and does not convert string imputers that meet nulls; so
it never gets what we can convert ourselves.

A vectorizer and what stands behind it are converted whole. Lower case is made by Python,
which knows all of Unicode, before the model sees a text; ONNX Runtime needs a locale of the
system for it. Words are cut out by ONNX's own regular expressions, which take ASCII alone
for letters where Python's take every alphabet: the default pattern of scikit-learn does not
come out equal, `[a-zA-Z]+` does.
"""

from __future__ import annotations

import copy
import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from clewline.model.compile.candidate_forms import (
    CandidateForm,
    InputEncoding,
    NotConvertible,
    OnnxForm,
)
from clewline.model.compile.compiler import OriginalModel
from clewline.model.compile.lowered_columns import (
    ColumnOp,
    LoweredColumn,
    NumberColumn,
    raw_columns,
    raw_thresholds,
)
from clewline.model.compile.onnx_graph import OPSET, OnnxGraph, encoding_of
from clewline.model.families.sklearn.lowering import column_groups, known_texts, lower
from clewline.model.families.sklearn.pipelines import final_and_steps, first_step
from clewline.model_families import family_of, fitted_names
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ML_OPSET = 3  # the newest that skl2onnx writes trees for
LOWERED, TEXTS = "converted by skl2onnx", "texts, converted by skl2onnx"

CONVERSION_S = 60.0
"""How long a conversion may take; some never end."""

Precision = Literal["float64", "float32 in float64", "float32"]


@dataclass(frozen=True, slots=True)
class ConvertedPart:
    """Lowered columns, and what cannot be converted and takes them all."""

    columns: list[LoweredColumn]
    rest: Any = None


def lowered_forms(original: OriginalModel, train: Columns) -> Iterator[CandidateForm]:
    """Yield the form in float64, then the one in float32."""
    final, steps = final_and_steps(original.model)
    family = family_of(final)
    if family is not None and family.name != original.family.name:
        raise NotConvertible(f"trees of {family.title} are lowered by reading them, or not at all")
    names = fitted_names([*steps, final][0])
    columns, levels = raw_columns(
        original.signature, original.layout, train, names=names, known_texts=known_texts(steps)
    )
    parts, left = _parts(steps, columns)
    rest = _chain([*left, final])
    # Trees round what they are given to float32.
    rounds = next(_trees_in(final), None) is not None
    exact: Precision = "float32 in float64" if rounds else "float64"
    for precision in (exact, "float32"):
        yield LoweredForm(original.signature, parts, rest, levels, precision)


class LoweredForm(OnnxForm):
    """A model whose last steps skl2onnx converted."""

    def __init__(
        self,
        signature: Signature,
        parts: list[ConvertedPart],
        rest: Any,
        levels: list[tuple[str, ...]],
        precision: Precision,
    ) -> None:
        self.name = LOWERED if precision == "float64" else f"{LOWERED}, {precision}"
        self.thresholds = _splits(rest, parts)
        self._signature, self._parts, self._rest = signature, parts, rest
        self._levels, self._precision = levels, precision
        self._columns = [column for part in parts for column in part.columns]

    def encoding(self, rows_per_call: int | None = None) -> InputEncoding:
        """Return the inputs."""
        return encoding_of(self._columns, self._signature, self._levels, rows_per_call)

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Return the ONNX file."""
        graph = OnnxGraph(self._signature, self._columns, ML_OPSET)
        parts = []
        for part in self._parts:
            rows = graph.matrix(part.columns)
            if part.rest is not None:
                rows = graph.inline(_convert(part.rest, _numbers_type()), {"x": rows})[0]
            parts.append(rows)
        rows = graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
        if self._precision != "float64":
            rows = graph.cast(rows, TensorProto.FLOAT)
        if self._precision == "float32 in float64":
            rows = graph.cast(rows)
        kind = _numbers_type(single=self._precision == "float32")
        answers = graph.inline(_convert(self._rest, kind), {"x": rows})
        _answer(graph, self._signature, self._rest, answers)
        return graph.model(self.encoding(rows_per_call))


def text_forms(original: OriginalModel, train: Columns) -> Iterator[CandidateForm]:
    """Yield the form of a model that takes texts."""
    vectorizer = first_step(original.model)
    name = type(vectorizer).__name__
    for setting in ("preprocessor", "tokenizer", "strip_accents"):
        if getattr(vectorizer, setting) is not None:
            raise NotConvertible(f"{name} with {setting} cannot be converted")
    if vectorizer.analyzer != "word":
        raise NotConvertible(f"{name} of {vectorizer.analyzer} cannot be converted")
    plain = copy.deepcopy(original.model)
    first_step(plain).lowercase = False
    yield TextForm(original.signature, plain, lower=bool(vectorizer.lowercase))


class TextForm(OnnxForm):
    """A model of texts that skl2onnx converted whole."""

    name = TEXTS

    def __init__(self, signature: Signature, model: Any, *, lower: bool) -> None:
        self.thresholds = []
        self._signature, self._model, self._lower = signature, model, lower

    def encoding(self, rows_per_call: int | None = None) -> InputEncoding:
        """Return the input."""
        field = self._signature.textual[0].name
        return InputEncoding(texts=field, lower=self._lower, rows_per_call=rows_per_call)

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Return the ONNX file."""
        from skl2onnx.common.data_types import StringTensorType

        graph = OnnxGraph(self._signature, (), ML_OPSET, {"com.microsoft": 1})
        texts = graph.input("texts", TensorProto.STRING, [None])
        answers = graph.inline(_convert(self._model, StringTensorType([None])), {"x": texts})
        _answer(graph, self._signature, self._model, answers)
        return graph.model(self.encoding(rows_per_call))


# ── by skl2onnx ─────────────────────────────────────────────────────────────


def _numbers_type(*, single: bool = False) -> Any:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return (FloatTensorType if single else DoubleTensorType)([None, None])


def _convert(model: Any, kind: Any, *, zipmap: bool = False) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn

    logging.getLogger("skl2onnx").setLevel(logging.ERROR)  # it warns of what we compare anyway
    final, _ = final_and_steps(model)
    has_option = hasattr(final, "classes_") and not zipmap
    try:
        with warnings.catch_warnings(action="ignore"), _time_limit(CONVERSION_S):
            found: onnx.ModelProto = convert_sklearn(
                model,
                initial_types=[("x", kind)],
                options={id(final): {"zipmap": False}} if has_option else {},
                target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            )
            return found
    except Exception as error:  # skl2onnx's errors have no common class
        first = (str(error).strip().splitlines() or [repr(error)])[0]
        if has_option and "zipmap" in first:  # it gives no dictionaries, and no choice
            return _convert(model, kind, zipmap=True)
        raise NotConvertible(f"skl2onnx: {first}") from error


class ConversionTimeout(Exception):
    """A conversion took too long."""

    def __str__(self) -> str:
        return f"the conversion did not end within {CONVERSION_S:g} s"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `ConversionTimeout` in this thread, between two steps of Python, after a time."""
    lock, is_over, thread = threading.Lock(), threading.Event(), threading.get_ident()

    def interrupt() -> None:
        with lock:
            if not is_over.is_set():
                error = ctypes.py_object(ConversionTimeout)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            is_over.set()
        timer.cancel()


def _answer(graph: OnnxGraph, signature: Signature, model: Any, answers: list[str]) -> None:
    """Turn what a converted model gives into the outputs."""
    if signature.output.task == "regression":
        graph.answer(values=graph.cast(answers[0]))
        return
    final, _ = final_and_steps(model)
    known = [label.item() if isinstance(label, np.generic) else label for label in final.classes_]
    labels, places = answers[0], list(range(len(known)))
    if isinstance(known[0], str):
        keys: dict[str, Any] = {"keys_strings": known}
    else:
        labels = graph.cast(labels, TensorProto.INT64)
        keys = {"keys_int64s": [int(label) for label in known]}
    choices = graph.add(
        "LabelEncoder", labels, domain="ai.onnx.ml", values_int64s=places, default_int64=-1, **keys
    )
    shares = graph.cast(answers[1]) if hasattr(final, "predict_proba") else None
    graph.answer(final.classes_, choices=choices, probabilities=shares)


# ── steps that are lowered, and the rest ────────────────────────────────────


def _parts(steps: list[Any], columns: list[LoweredColumn]) -> tuple[list[ConvertedPart], list[Any]]:
    """Lower the first steps as far as possible; return columns, and the steps that are left."""
    for place, step in enumerate(steps):
        try:
            columns = lower(step, columns)
        except NotConvertible:
            if type(step).__name__ == "ColumnTransformer" and place == 0:
                groups = column_groups(step, columns)
                return [_part(inner, chosen) for inner, chosen in groups], steps[1:]
            for column in columns:
                if not isinstance(column, NumberColumn) and not getattr(column, "encoded", False):
                    reason = getattr(column, "reason", "a string meets a step without a lowering")
                    raise NotConvertible(reason) from None
            return [ConvertedPart(columns)], steps[place:]
    return [ConvertedPart(columns)], []


def _part(inner: Any, columns: list[LoweredColumn]) -> ConvertedPart:
    """Lower a part of a ColumnTransformer, and leave to skl2onnx what cannot be converted."""
    if isinstance(inner, str):
        return ConvertedPart(columns)
    is_pipeline = type(inner).__name__ == "Pipeline"
    lowered, left = _parts([step for _, step in inner.steps] if is_pipeline else [inner], columns)
    return ConvertedPart(lowered[0].columns, _chain(left) if left else None)


def _chain(steps: list[Any]) -> Any:
    from sklearn.pipeline import Pipeline

    if len(steps) == 1:
        return steps[0]
    return Pipeline([(f"step{place}", step) for place, step in enumerate(steps)])


def _trees_in(model: Any, columns: NDArray[np.int64] | None = None) -> Iterator[tuple[Any, Any]]:
    """Yield the trees inside an estimator, each with the columns that it is given, None for all."""
    if hasattr(model, "tree_"):
        yield model.tree_, columns
    inner = getattr(model, "estimators_", ())
    chosen = getattr(model, "estimators_features_", None) or [columns] * len(inner)
    for part, features in zip(inner, chosen, strict=True):
        for one in part if isinstance(part, np.ndarray) else [part]:
            yield from _trees_in(one, features)


def _splits(rest: Any, parts: list[ConvertedPart]) -> list[tuple[int, float]]:
    """Carry the splits of trees that skl2onnx converts back to raw fields, if possible."""
    final, steps = final_and_steps(rest)
    if steps or any(part.rest is not None for part in parts):
        return []
    columns = [column for part in parts for column in part.columns]
    splits: set[tuple[int, float]] = set()
    for tree, features in _trees_in(final):
        inner = tree.children_left >= 0
        feature = tree.feature[inner] if features is None else features[tree.feature[inner]]
        for index in np.unique(feature).tolist():
            column = columns[index]
            if isinstance(column, NumberColumn) and column.monotone:
                thresholds = tree.threshold[inner][feature == index]
                raw = raw_thresholds(column.then(ColumnOp("float32")), thresholds)
                splits |= {(column.field, v) for v in raw[np.isfinite(raw)].tolist()}
    return sorted(splits)
