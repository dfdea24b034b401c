"""Vectorizers of scikit-learn with a linear model behind them, for the runtime of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.texts import takes_texts
from clewline.model.compile.form import Form, NotLowered
from clewline.model.compile.original import Original, final_and_steps
from clewline.model.runtime.bag import (
    BIAS,
    IDF,
    SPEC,
    TERMS,
    WEIGHTS,
    Bag,
    BagRuntime,
    bytes_of,
)
from clewline.model.runtime.sklearn import label_order
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
"""Linear models whose scores are sums of one weight a term."""


def bagged(original: Original, train: Columns) -> Iterator[Form]:
    """Give the form of a model over texts; none of one that takes a table."""
    if not takes_texts(original.model):
        return
    final, steps = final_and_steps(original.model)
    vectorizer, *rest = _flat(steps)
    _require_plain(vectorizer, rest)
    weights, bias, link = _linear(final, original)
    weighing = rest[0] if rest else vectorizer
    spec = _spec(vectorizer, weighing, original.signature.textual[0].name, link)
    terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    yield Bagged(spec, terms, weights, bias, weighing.idf_ if spec.idf else None)


class Bagged:
    """A model over texts as its terms, their weights, and how a text is cut into terms."""

    name = NAME
    by = "our own runtime"
    server = BagRuntime()
    distributions = ("scikit-learn", "numpy")

    def __init__(
        self,
        spec: Bag,
        terms: list[str],
        weights: NDArray[Any],
        bias: NDArray[Any],
        idf: NDArray[Any] | None,
    ) -> None:
        self.thresholds: list[tuple[int, float]] = []
        self._spec = spec
        self._files = {
            SPEC: msgspec.json.encode(spec),
            TERMS: _encoded(terms),
            WEIGHTS: bytes_of(weights),
            BIAS: bytes_of(bias),
        } | ({} if idf is None else {IDF: bytes_of(idf)})

    def encoding(self, rows_per_call: int | None = None) -> Bag:
        """State how a text becomes numbers."""
        return self._spec

    def files(self, rows_per_call: int | None = None) -> dict[str, bytes]:
        """Give the files; a row never depends on its neighbours, so each call takes them all."""
        return self._files


def _flat(steps: list[Any]) -> Iterator[Any]:
    """Give the steps, those of pipelines among them one by one."""
    for step in steps:
        inner, before = final_and_steps(step)
        if before or inner is not step:
            yield from _flat([*before, inner])
        else:
            yield step


def _require_plain(vectorizer: Any, rest: list[Any]) -> None:
    name = type(vectorizer).__name__
    if not hasattr(vectorizer, "vocabulary_"):
        raise NotLowered(f"{name} keeps no terms")
    for setting in ("preprocessor", "tokenizer"):
        if getattr(vectorizer, setting) is not None:
            raise NotLowered(f"{name} with {setting} has no lowering")
    if callable(vectorizer.analyzer) or callable(vectorizer.strip_accents):
        raise NotLowered(f"{name} with a function of its own has no lowering")
    if vectorizer.input != "content":
        raise NotLowered(f"{name} reads files")
    follows = [type(step).__name__ for step in rest]
    if follows not in ([], ["TfidfTransformer"]) or (follows and name != "CountVectorizer"):
        raise NotLowered(f"{' and '.join(follows)} after {name} has no lowering")


def _spec(vectorizer: Any, weighing: Any, field: str, link: Any) -> Bag:
    is_words = vectorizer.analyzer == "word"
    stop = vectorizer.get_stop_words() if is_words else None
    return Bag(
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


def _linear(final: Any, original: Original) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Give the weights, shape (terms, scores), the bias, and what scores become."""
    name = type(final).__name__
    if not type(final).__module__.startswith("sklearn."):
        raise NotLowered(f"{name} is none of scikit-learn's linear models")
    if name in BAYES:
        weights, bias = final.feature_log_prob_, final.class_log_prior_
        _require_order(final, original)
        alone = name == "ComplementNB" and len(final.classes_) > 1  # it leaves the prior out
        return weights.T, np.zeros(len(bias)) if alone else bias, "softmax"
    if name not in LOGISTIC | OTHERS:
        raise NotLowered(f"{name} is none of scikit-learn's linear models")
    if not isinstance(final.coef_, np.ndarray):
        raise NotLowered(f"{name} with sparse weights has no lowering")
    weights = np.atleast_2d(final.coef_).T
    bias = np.broadcast_to(
        np.asarray(final.intercept_, dtype=np.float64).reshape(-1), (weights.shape[1],)
    )
    if original.signature.output.labels is None:
        return weights, bias, "value"
    _require_order(final, original)
    return weights, bias, _link(final, scores=weights.shape[1])


def _link(final: Any, *, scores: int) -> str:
    if not hasattr(final, "predict_proba"):
        return "labels"
    if scores == 1:
        return "sigmoid"
    return "softmax" if type(final).__name__ in LOGISTIC else "shares"


def _require_order(final: Any, original: Original) -> None:
    order = label_order(final.classes_, original.signature.output)
    if order != list(range(len(order))):
        raise NotLowered("its labels stand in another order than the signature's")


def _encoded(terms: list[str]) -> bytes:
    try:
        return msgspec.json.encode(terms)
    except UnicodeEncodeError as error:
        raise NotLowered("a term holds half a character, which no JSON can") from error
