"""Vectorizers of scikit-learn with a linear model behind them, as a linear text model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.candidate_forms import CandidateForm, NotConvertible
from clewline.model.compile.compiler import OriginalModel
from clewline.model.families.linear_text_model.family import (
    BIAS,
    IDF,
    SPEC,
    TERMS,
    WEIGHTS,
    LinearTextSpec,
    array_to_bytes,
)
from clewline.model.families.sklearn.pipelines import final_and_steps
from clewline.model.runtime.outputs import label_order
from clewline.signature.columns import Columns

NAME = "terms and weights"

BAYES = frozenset({"MultinomialNB", "ComplementNB"})
LOGISTIC = frozenset({"LogisticRegression", "LogisticRegressionCV"})
OTHERS = frozenset(
    {
        "LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "Perceptron", "SGDClassifier",
        "PassiveAggressiveClassifier", "Ridge", "RidgeCV", "LinearRegression", "Lasso",
        "ElasticNet", "LinearSVR", "SGDRegressor", "HuberRegressor",
    }
)  # fmt: skip
"""Linear models whose scores are sums of one weight for each term."""


def linear_text_forms(original: OriginalModel, train: Columns) -> Iterator[CandidateForm]:
    """Yield the form of a model over texts."""
    final, steps = final_and_steps(original.model)
    vectorizer, *rest = _flat(steps)
    weighing = rest[0] if rest else vectorizer
    _require_plain(vectorizer, rest)
    weights, bias, link = _linear(final, original)
    spec = linear_text_spec(vectorizer, weighing, original.signature.textual[0].name, link)
    terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    try:
        files = {
            SPEC: msgspec.json.encode(spec),
            TERMS: msgspec.json.encode(terms),
            WEIGHTS: array_to_bytes(weights),
            BIAS: array_to_bytes(bias),
        }
    except UnicodeEncodeError as error:
        raise NotConvertible("a term holds half a character, which JSON cannot hold") from error
    yield LinearTextForm(spec, files | ({IDF: array_to_bytes(weighing.idf_)} if spec.idf else {}))


class LinearTextForm:
    """A model over texts as its terms, their weights, and how a text is cut into terms."""

    name = NAME
    runtime = "linear_text_model"
    executed_by = "our own runtime"
    distributions: tuple[str, ...] = ("scikit-learn", "numpy")

    def __init__(self, spec: LinearTextSpec, files: dict[str, bytes]) -> None:
        self.thresholds: list[tuple[int, float]] = []
        self._spec, self._files = spec, files

    def encoding(self, rows_per_call: int | None = None) -> LinearTextSpec:
        """Return how a text becomes numbers."""
        return self._spec

    def files(self, rows_per_call: int | None = None) -> dict[str, bytes]:
        """Return the files; a row never depends on its neighbours, so each call takes them all."""
        return self._files


def _flat(steps: list[Any]) -> Iterator[Any]:
    """Yield the steps, those of nested pipelines one by one."""
    for step in steps:
        inner, before = final_and_steps(step)
        if before or inner is not step:
            yield from _flat([*before, inner])
        else:
            yield step


def _require_plain(vectorizer: Any, rest: list[Any]) -> None:
    name = type(vectorizer).__name__
    if not hasattr(vectorizer, "vocabulary_"):
        raise NotConvertible(f"{name} keeps no terms")
    for setting in ("preprocessor", "tokenizer"):
        if getattr(vectorizer, setting) is not None:
            raise NotConvertible(f"{name} with {setting} cannot be converted")
    if callable(vectorizer.analyzer) or callable(vectorizer.strip_accents):
        raise NotConvertible(f"{name} with a function of its own cannot be converted")
    if vectorizer.input != "content":
        raise NotConvertible(f"{name} reads files")
    follows = [type(step).__name__ for step in rest]
    if follows not in ([], ["TfidfTransformer"]) or (follows and name != "CountVectorizer"):
        raise NotConvertible(f"{' and '.join(follows)} after {name} cannot be converted")


def linear_text_spec(vectorizer: Any, weighing: Any, field: str, link: Any) -> LinearTextSpec:
    """Return how a fitted vectorizer, and what weighs its counts, turn a text into numbers."""
    is_words = vectorizer.analyzer == "word"
    stop = vectorizer.get_stop_words() if is_words else None
    return LinearTextSpec(
        field=field,
        analyzer=vectorizer.analyzer,
        ngrams=tuple(vectorizer.ngram_range),
        pattern=vectorizer.token_pattern if is_words else None,
        lower=bool(vectorizer.lowercase),
        accents=vectorizer.strip_accents,
        stop_words=tuple(sorted(stop or ())),
        binary=bool(vectorizer.binary),
        idf=bool(getattr(weighing, "use_idf", False)),
        sublinear=bool(getattr(weighing, "sublinear_tf", False)),
        norm=getattr(weighing, "norm", None),
        link=link,
    )


def _linear(final: Any, original: OriginalModel) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Return the weights, shape (terms, scores), the bias, and what scores become."""
    name, output = type(final).__name__, original.signature.output
    is_known = type(final).__module__.startswith("sklearn.") and name in BAYES | LOGISTIC | OTHERS
    if not is_known:
        raise NotConvertible(f"{name} is none of scikit-learn's linear models")
    if output.labels is not None:
        order = label_order(final.classes_, output)
        if order != list(range(len(order))):
            raise NotConvertible("its labels stand in another order than the signature's")
    if name in BAYES:
        weights, bias = final.feature_log_prob_, final.class_log_prior_
        alone = name == "ComplementNB" and len(final.classes_) > 1  # it leaves the prior out
        return weights.T, np.zeros(len(bias)) if alone else bias, "softmax"
    if not isinstance(final.coef_, np.ndarray):
        raise NotConvertible(f"{name} with sparse weights cannot be converted")
    weights = np.atleast_2d(final.coef_).T
    intercept = np.asarray(final.intercept_, dtype=np.float64).reshape(-1)
    bias = np.broadcast_to(intercept, (weights.shape[1],))
    if output.labels is None:
        return weights, bias, "value"
    if not hasattr(final, "predict_proba"):
        return weights, bias, "labels"
    if weights.shape[1] == 1:
        return weights, bias, "sigmoid"
    return weights, bias, "softmax" if name in LOGISTIC else "shares"
