"""
scikit-learn's trees, forests and boosted trees as sums of trees, and what is made of the sums.

A sum is added up in the order in which scikit-learn adds, in float64, so that it
has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from clewline.model.compile.form import NotLowered
from clewline.model.compile.tree import Tree, constant, from_cython, from_histogram, simplified

Link = Literal["mean", "identity", "exp", "sigmoid", "half sigmoid", "softmax"]


class Member(NamedTuple):
    """
    A set of categories that splits ask for, as a column of its own.

    Its feature number follows those of the columns: at most 0.5 goes left. Where the
    set goes left, null goes right with all other categories; where it goes right,
    null goes where the split says.
    """

    column: int
    codes: frozenset[int]
    left: bool


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees, each adding to one target, and how the sums become answers."""

    trees: list[tuple[int, Tree]]
    targets: int
    link: Link
    count: int = 1  # of estimators, which "mean" divides by
    zero_is_second: bool = False  # a raw score of exactly 0 is the second label
    float32: bool = True  # inputs are rounded to float32 before they are compared
    members: tuple[Member, ...] = ()
    sparse_zeros_are_null: bool = False  # a zero that a sparse matrix leaves out counts as null


def ensemble_of(model: Any, *, exact_ties: bool = False) -> Ensemble:
    """
    Take a fitted tree estimator apart.

    Args:
        model: A tree, forest, or boosted trees of scikit-learn.
        exact_ties: Add up both classes of a binary forest rather than one and its
            complement: twice the work, and no bit between ties left to rounding.

    Raises:
        NotLowered: It is none, or has several outputs or categorical splits.
    """
    name = type(model).__name__
    build = _ENSEMBLES.get(name)
    if build is None or not type(model).__module__.startswith("sklearn."):
        raise NotLowered(f"{name} is no ensemble of trees")
    if getattr(model, "n_outputs_", 1) != 1:
        raise NotLowered(f"{name} has several outputs")
    return build(model, exact_ties)


def _tree(model: Any, exact_ties: bool) -> Ensemble:
    return _mean([model], model, exact_ties)


def _forest(model: Any, exact_ties: bool) -> Ensemble:
    return _mean(list(model.estimators_), model, exact_ties)


def _mean(parts: list[Any], model: Any, exact_ties: bool) -> Ensemble:
    classes = len(getattr(model, "classes_", ()))
    if classes == 1:
        raise NotLowered("it was trained with one class only")
    columns = [1] if classes == 2 and not exact_ties else list(range(max(classes, 1)))
    trees = [
        (target, simplified(from_cython(part.tree_, part.tree_.value[:, 0, column])))
        for target, column in enumerate(columns)
        for part in parts
    ]
    return Ensemble(trees, len(columns), "mean", len(parts))


def _boosted(model: Any, exact_ties: bool) -> Ensemble:
    start = _start(model)
    trees = [(target, constant(value)) for target, value in enumerate(start)]
    for stage in model.estimators_:
        for target, part in enumerate(stage):
            values = model.learning_rate * part.tree_.value[:, 0, 0]
            trees.append((target, simplified(from_cython(part.tree_, values))))
    return Ensemble(trees, len(start), _link(model), zero_is_second=True)


def _start(model: Any) -> list[float]:
    init = type(model.init_).__name__
    if init not in ("DummyClassifier", "DummyRegressor", "str"):
        raise NotLowered(f"boosting that starts from {init} has no lowering")
    found: list[float] = model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0].tolist()
    return found


def _histogram(model: Any, exact_ties: bool) -> Ensemble:
    if model.is_categorical_ is not None:
        raise NotLowered("histogram boosting with categorical features has no lowering")
    start = model._baseline_prediction.ravel().tolist()
    trees = [(target, constant(value)) for target, value in enumerate(start)]
    for stage in model._predictors:
        trees += [(target, simplified(from_histogram(part))) for target, part in enumerate(stage)]
    return Ensemble(trees, len(start), _link(model), float32=False)


def _link(model: Any) -> Link:
    link = type(model._loss.link).__name__
    if link not in _LINKS:
        raise NotLowered(f"boosting with the link {link} has no lowering")
    return _LINKS[link]


_LINKS: dict[str, Link] = {
    "IdentityLink": "identity",
    "LogLink": "exp",
    "LogitLink": "sigmoid",
    "HalfLogitLink": "half sigmoid",
    "MultinomialLogit": "softmax",
}

_ENSEMBLES: dict[str, Callable[[Any, bool], Ensemble]] = {
    "DecisionTreeClassifier": _tree,
    "DecisionTreeRegressor": _tree,
    "ExtraTreeClassifier": _tree,
    "ExtraTreeRegressor": _tree,
    "RandomForestClassifier": _forest,
    "RandomForestRegressor": _forest,
    "ExtraTreesClassifier": _forest,
    "ExtraTreesRegressor": _forest,
    "GradientBoostingClassifier": _boosted,
    "GradientBoostingRegressor": _boosted,
    "HistGradientBoostingClassifier": _histogram,
    "HistGradientBoostingRegressor": _histogram,
}
