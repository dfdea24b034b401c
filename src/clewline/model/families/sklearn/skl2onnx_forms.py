"""
The form that skl2onnx converts: linear models and networks over lowered columns, in float64.

skl2onnx's arithmetic has not the bits of scikit-learn's. Where an answer changes steadily with its
inputs, the last bits do no harm. Where it jumps (trees, neighbours, bins, votes), they decide
between two answers, and no test rows show that they never do. So only classes in `STEADY` are
converted, and only graphs that compute in float64 from end to end; scikit-learn serves the rest.

skl2onnx gets float64 columns. It has no kernel for numeric imputers in float64, turns
None into the string 'None', and does not convert string imputers that meet nulls; so
it never gets what we can convert ourselves.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from clewline.model.compile.candidate_forms import (
    CandidateForm,
    InputEncoding,
    NotConvertible,
    OnnxForm,
)
from clewline.model.compile.compiler import OriginalModel
from clewline.model.compile.lowered_columns import LoweredColumn, NumberColumn, raw_columns
from clewline.model.compile.onnx_graph import OPSET, OnnxGraph, encoding_of
from clewline.model.families.sklearn.lowering import column_groups, known_texts, lower
from clewline.model.families.sklearn.pipelines import final_and_steps
from clewline.model_families import family_of, fitted_names
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ML_OPSET = 3
LOWERED = "converted by skl2onnx"

STEADY = frozenset(
    {
        "ARDRegression", "BayesianRidge", "ComplementNB", "ElasticNet", "ElasticNetCV",
        "FunctionTransformer", "GammaRegressor", "GaussianRandomProjection",
        "GenericUnivariateSelect", "HuberRegressor", "IncrementalPCA", "Lars", "LarsCV", "Lasso",
        "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearDiscriminantAnalysis",
        "LinearRegression", "LinearSVC", "LinearSVR", "LogisticRegression", "LogisticRegressionCV",
        "MLPClassifier", "MLPRegressor", "MaxAbsScaler", "MinMaxScaler", "MultinomialNB",
        "Normalizer", "OneVsRestClassifier", "OrthogonalMatchingPursuit",
        "OrthogonalMatchingPursuitCV", "PCA", "PLSRegression", "PassiveAggressiveClassifier",
        "PassiveAggressiveRegressor", "Perceptron", "Pipeline", "PoissonRegressor",
        "PolynomialFeatures", "QuantileRegressor", "RFE", "RFECV", "RANSACRegressor", "Ridge",
        "RidgeCV", "RidgeClassifier", "RidgeClassifierCV", "RobustScaler", "SGDClassifier",
        "SGDRegressor", "SelectFdr", "SelectFpr", "SelectFromModel", "SelectFwe", "SelectKBest",
        "SelectPercentile", "StandardScaler", "TheilSenRegressor", "TruncatedSVD",
        "TweedieRegressor", "VarianceThreshold", "VotingRegressor",
    }
)  # fmt: skip
"""
Classes whose answers change steadily with their inputs, up to the choice of a label.

GaussianNB is none: a field that hardly varies gives terms of 1e9 and more, and the last bits of
their sum move a probability by 1e-6.
"""

EXACT_OPERATORS = frozenset({"ArrayFeatureExtractor", "LabelEncoder"})
"""Operators of the domain ai.onnx.ml that keep float64."""


@dataclass(frozen=True, slots=True)
class ConvertedPart:
    """Lowered columns, and what cannot be converted and takes them all."""

    columns: list[LoweredColumn]
    rest: Any = None


def lowered_forms(original: OriginalModel, train: Columns) -> Iterator[CandidateForm]:
    """Yield the form in float64."""
    import skl2onnx  # noqa: F401 - here, or each fork that converts imports it again

    final, steps = final_and_steps(original.model)
    family = family_of(final)
    if family is not None and family.name != original.family.name:
        raise NotConvertible(f"trees of {family.title} are lowered by reading them, or not at all")
    names = fitted_names([*steps, final][0])
    columns, levels = raw_columns(
        original.signature, original.layout, train, names=names, known_texts=known_texts(steps)
    )
    parts, left = _parts(steps, columns)
    rest = _chain([*left, _with_a_converter(final)])
    for part in (rest, *(part.rest for part in parts if part.rest is not None)):
        _require_steady(part)
    yield LoweredForm(original.signature, parts, rest, levels)


class LoweredForm(OnnxForm):
    """A model whose last steps skl2onnx converted."""

    name = LOWERED

    def __init__(
        self,
        signature: Signature,
        parts: list[ConvertedPart],
        rest: Any,
        levels: list[tuple[str, ...]],
    ) -> None:
        self.thresholds = []
        self._signature, self._parts, self._rest = signature, parts, rest
        self._levels = levels
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
                rows = graph.inline(_convert(part.rest), {"x": rows})[0]
            parts.append(rows)
        rows = graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
        answers = graph.inline(_convert(self._rest), {"x": rows})
        _answer(graph, self._signature, self._rest, answers)
        _require_float64(graph)
        return graph.model(self.encoding(rows_per_call))


def _with_a_converter(final: Any) -> Any:
    """Return a classifier of the same labels and weights where skl2onnx has float32 alone."""
    if type(final).__name__ not in ("LinearSVC", "RidgeClassifier", "RidgeClassifierCV"):
        return final
    from sklearn.linear_model import Perceptron

    same = Perceptron()
    same.classes_, same.n_features_in_ = final.classes_, final.n_features_in_
    same.coef_, same.intercept_ = np.atleast_2d(final.coef_), np.ravel(final.intercept_)
    return same


def _require_steady(model: Any) -> None:
    """Raise NotConvertible if an estimator, or one inside it, is none of `STEADY`."""
    inside = [each for each in model.get_params().values() if hasattr(each, "get_params")]
    for each in (model, *inside):
        name = type(each).__name__
        if name not in STEADY or not type(each).__module__.startswith("sklearn."):
            raise NotConvertible(f"{name} may jump where the last bit of a number differs")


def _require_float64(graph: OnnxGraph) -> None:
    """Raise NotConvertible if a graph computes in float32 anywhere."""
    casts = (
        attribute.i
        for node in graph.nodes
        if node.op_type == "Cast"
        for attribute in node.attribute
        if attribute.name == "to"
    )
    constants = (constant.data_type for constant in graph.initializers)
    single = TensorProto.FLOAT in (*casts, *constants)
    of_ml = {node.op_type for node in graph.nodes if node.domain == "ai.onnx.ml"}
    if single or of_ml - EXACT_OPERATORS:
        raise NotConvertible("skl2onnx computes it in float32")


# ── by skl2onnx ─────────────────────────────────────────────────────────────


def _convert(model: Any, *, zipmap: bool = False) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType

    logging.getLogger("skl2onnx").setLevel(logging.ERROR)  # it warns of what we compare anyway
    final, _ = final_and_steps(model)
    has_option = hasattr(final, "classes_") and not zipmap
    try:
        with warnings.catch_warnings(action="ignore"):
            found: onnx.ModelProto = convert_sklearn(
                model,
                initial_types=[("x", DoubleTensorType([None, None]))],
                options={id(final): {"zipmap": False}} if has_option else {},
                target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            )
            return found
    except Exception as error:  # skl2onnx's errors have no common class
        first = (str(error).strip().splitlines() or [repr(error)])[0]
        if has_option and "zipmap" in first:  # it gives no dictionaries, and no choice
            return _convert(model, zipmap=True)
        raise NotConvertible(f"skl2onnx: {first}") from error


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
