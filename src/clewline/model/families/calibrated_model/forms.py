"""The forms of a calibrated model: each form of its classifier, with the map behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import onnx

from clewline.model.compile.candidate_forms import CandidateForm, OnnxForm
from clewline.model.compile.compiler import OriginalModel
from clewline.model.compile.onnx_graph import OnnxGraph
from clewline.model.compile.trees import TRUE_FRACTIONS
from clewline.model.families.calibrated_model.probability_map import ProbabilityMap, emit_map
from clewline.model.families.calibrated_model.served_map import SERVED_MAP, ServedMap
from clewline.model.families.family import FormBuilder
from clewline.model.runtime.outputs import label_order
from clewline.signature.columns import Columns

PROBABILITIES = "probabilities"


def builders(original: OriginalModel) -> list[tuple[str, FormBuilder]]:
    """Return the forms to try: those of the classifier, in its order."""
    inner = inner_original(original)
    return [
        (name, _with_map(original, inner, build))
        for name, build in inner.family.form_builders(inner)
    ]


def inner_original(original: OriginalModel) -> OriginalModel:
    """Return the classifier of a calibrated model as an original of its own."""
    return replace(original, model=original.model.estimator)


def _with_map(
    original: OriginalModel, inner: OriginalModel, build: FormBuilder
) -> Callable[[Any, Columns], Iterator[CandidateForm]]:
    def forms(_: Any, train: Columns) -> Iterator[CandidateForm]:
        for form in build(inner, train):
            if isinstance(form, OnnxForm):
                yield CalibratedOnnx(original, form)
            else:
                yield CalibratedForm(original, form)

    return forms


class CalibratedOnnx(OnnxForm):
    """An ONNX graph whose probabilities go through the nodes of a map."""

    def __init__(self, original: OriginalModel, form: OnnxForm) -> None:
        self.name = f"{form.name}, calibrated"  # type: ignore[attr-defined]
        self.thresholds, self.distributions = form.thresholds, form.distributions
        self._form, self._signature = form, original.signature
        self._classes = original.model.classes_
        self._map: ProbabilityMap = original.model.probabilities

    def encoding(self, rows_per_call: int | None = None) -> Any:
        """Return the inputs."""
        return self._form.encoding(rows_per_call)  # type: ignore[attr-defined]

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Return the ONNX file."""
        inner = onnx.load_model_from_string(self._form.model(rows_per_call))
        kept = [each for each in inner.graph.initializer if each.name != TRUE_FRACTIONS]
        del inner.graph.initializer[:]
        inner.graph.initializer.extend(kept)
        opsets = {each.domain: each.version for each in inner.opset_import}
        graph = OnnxGraph(self._signature, [], opsets.pop("ai.onnx.ml"), opsets)
        graph.inputs = {each.name: each for each in inner.graph.input}
        outputs = [each.name for each in inner.graph.output]
        answers = graph.inline(inner, {name: name for name in graph.inputs})
        shares = answers[outputs.index(PROBABILITIES)]
        order = label_order(self._classes, self._signature.output)
        if order != list(range(len(order))):  # the map takes the order of the model's classes
            columns = graph.constant(np.argsort(order))
            shares = graph.add("Gather", shares, columns, axis=1)
        shares = emit_map(self._map, graph, shares, len(order))
        choices = graph.add("ArgMax", shares, axis=1, keepdims=0)
        graph.answer(self._classes, choices=choices, probabilities=shares)
        return graph.model(self.encoding(rows_per_call))


class CalibratedForm:
    """Another form of the classifier, and the map as a file beside it."""

    runtime = "calibrated_model"

    def __init__(self, original: OriginalModel, form: CandidateForm) -> None:
        self.name, self.executed_by = f"{form.name}, calibrated", form.executed_by
        self.thresholds, self.distributions = form.thresholds, form.distributions
        self._form = form
        self._map = served_map(original, form.runtime)

    def encoding(self, rows_per_call: int | None = None) -> Any:
        """Return how it is fed."""
        return self._form.encoding(rows_per_call)

    def files(self, rows_per_call: int | None = None) -> dict[str, bytes]:
        """Return the files of a package."""
        return with_map(self._form.files(rows_per_call), self._map, rows_per_call)


def served_map(original: OriginalModel, runtime: str) -> ServedMap:
    """Return the map as it is served: by the order of the signature's labels."""
    order = label_order(original.model.classes_, original.signature.output)
    return ServedMap(runtime, original.model.probabilities, tuple(order))


def with_map(
    files: dict[str, bytes], found: ServedMap, rows_per_call: int | None
) -> dict[str, bytes]:
    """Return the files of a classifier with that of the map."""
    stated = msgspec.structs.replace(found, rows_per_call=rows_per_call)
    return files | {SERVED_MAP: msgspec.json.encode(stated)}
