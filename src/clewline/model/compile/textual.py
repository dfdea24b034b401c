"""
Vectorizers of one column of texts, and what stands behind them, by skl2onnx.

Lower case is made by Python, which knows all of Unicode, before the model sees a text;
ONNX Runtime needs a locale of the system for it. Words are cut out by ONNX's own
regular expressions, which take ASCII alone for letters where Python's take every
alphabet: the default pattern of scikit-learn does not hold, `[a-zA-Z]+` does.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import TensorProto

from clewline.evaluation.texts import first_of, takes_texts
from clewline.model.compile.form import Form, NotLowered, OnnxForm
from clewline.model.compile.generic import ML_OPSET, choices_of
from clewline.model.compile.graph import OPSET, Graph, emit_answers
from clewline.model.compile.original import Original, final_and_steps
from clewline.model.runtime.encoding import Encoding
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

NAME = "texts, by skl2onnx"


def textual(original: Original, train: Columns) -> Iterator[Form]:
    """Give the form of a model that takes texts; none of one that takes a table."""
    if not takes_texts(original.model):
        return
    vectorizer = first_of(original.model)
    for setting in ("preprocessor", "tokenizer", "strip_accents"):
        if getattr(vectorizer, setting) is not None:
            raise NotLowered(f"{type(vectorizer).__name__} with {setting} has no lowering")
    if vectorizer.analyzer != "word":
        raise NotLowered(f"{type(vectorizer).__name__} of {vectorizer.analyzer} has no lowering")
    lower = bool(vectorizer.lowercase)
    plain = copy.deepcopy(original.model)
    first_of(plain).lowercase = False
    yield Textual(original.signature, plain, lower=lower)


class Textual(OnnxForm):
    """A model of texts that skl2onnx converted whole."""

    name = NAME
    thresholds: list[tuple[int, float]]

    def __init__(self, signature: Signature, model: Any, *, lower: bool) -> None:
        self.thresholds = []
        self._signature, self._model, self._lower = signature, model, lower

    def encoding(self, rows_per_call: int | None = None) -> Encoding:
        """State the input."""
        field = self._signature.textual[0].name
        return Encoding(texts=field, lower=self._lower, rows_per_call=rows_per_call)

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Write the ONNX file."""
        graph = Graph(ML_OPSET, {"com.microsoft": 1})
        texts = graph.input("texts", TensorProto.STRING, [None])
        answers = graph.inline(self._converted(), {"x": texts})
        if self._signature.output.task == "regression":
            value = graph.add("Cast", answers[0], to=TensorProto.DOUBLE)
            emit_answers(graph, self._signature, values=value)
        else:
            self._labels(graph, answers)
        return graph.model(self.encoding(rows_per_call))

    def _labels(self, graph: Graph, answers: list[str]) -> None:
        final, _ = final_and_steps(self._model)
        choices = choices_of(graph, answers[0], final.classes_)
        shares = None
        if hasattr(final, "predict_proba"):
            shares = graph.add("Cast", answers[1], to=TensorProto.DOUBLE)
        emit_answers(graph, self._signature, final.classes_, choices=choices, shares=shares)

    def _converted(self) -> onnx.ModelProto:
        final, _ = final_and_steps(self._model)
        try:
            return self._convert({id(final): {"zipmap": False}})
        except NotLowered as error:
            if "zipmap" not in str(error):
                raise
            return self._convert({})  # it gives no dictionaries, and no choice

    def _convert(self, options: dict[int, Any]) -> onnx.ModelProto:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import StringTensorType

        logging.getLogger("skl2onnx").setLevel(logging.ERROR)  # it warns of what we hold against
        try:
            with warnings.catch_warnings(action="ignore"):
                found: onnx.ModelProto = convert_sklearn(
                    self._model,
                    initial_types=[("x", StringTensorType([None]))],
                    options=options,
                    target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
                )
        except Exception as error:  # skl2onnx's errors have no common class
            lines = str(error).strip().splitlines() or [repr(error)]
            raise NotLowered(f"skl2onnx: {lines[0]}") from error
        return found
