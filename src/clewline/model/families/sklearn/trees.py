"""
scikit-learn's trees, forests and boosted trees as sums of trees.

A sum is added up in the order in which scikit-learn adds, in float64, so that it
has the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.trees import (
    DecisionTree,
    Link,
    TreeEnsemble,
    constant_trees,
    tree_of_arrays,
)

LINKS: dict[str, Link] = {
    "IdentityLink": "identity",
    "LogLink": "exp",
    "LogitLink": "sigmoid",
    "HalfLogitLink": "half sigmoid",
    "MultinomialLogit": "softmax",
}
KINDS = ("Classifier", "Regressor")


def tree_ensemble(model: Any, *, exact_ties: bool = False) -> TreeEnsemble:
    """
    Read the trees of a fitted tree estimator.

    Args:
        model: A tree, forest, or boosted trees of scikit-learn.
        exact_ties: Add up both classes of a binary forest rather than one and its
            complement: twice the work, but no tie depends on the last bit of rounding.

    Raises:
        NotConvertible: It is no such estimator, or has several outputs or categorical splits.
    """
    name = type(model).__name__
    kind = next((name.removesuffix(each) for each in KINDS if name.endswith(each)), "")
    if not type(model).__module__.startswith("sklearn."):
        kind = ""
    if getattr(model, "n_outputs_", 1) != 1:
        raise NotConvertible(f"{name} has several outputs")
    match kind:
        case "DecisionTree" | "ExtraTree":
            return _mean([model], model, exact_ties)
        case "RandomForest" | "ExtraTrees":
            return _mean(list(model.estimators_), model, exact_ties)
        case "GradientBoosting":
            init = type(model.init_).__name__
            if init not in ("DummyClassifier", "DummyRegressor", "str"):
                raise NotConvertible(f"boosting that starts from {init} cannot be converted")
            start = model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0].tolist()
            trees = constant_trees(start)
            for stage in model.estimators_:
                for target, part in enumerate(stage):
                    values = model.learning_rate * part.tree_.value[:, 0, 0]
                    trees.append((target, _tree(part.tree_, values)))
            return TreeEnsemble(trees, len(start), _link(model), zero_is_second=True)
        case "HistGradientBoosting":
            if model.is_categorical_ is not None:
                raise NotConvertible(
                    "histogram boosting with categorical features cannot be converted"
                )
            start = model._baseline_prediction.ravel().tolist()
            trees = constant_trees(start)
            for stage in model._predictors:
                trees += [(target, _histogram_tree(part)) for target, part in enumerate(stage)]
            return TreeEnsemble(trees, len(start), _link(model), float32=False)
    raise NotConvertible(f"{name} is no ensemble of trees")


def _mean(parts: list[Any], model: Any, exact_ties: bool) -> TreeEnsemble:
    classes = len(getattr(model, "classes_", ()))
    if classes == 1:
        raise NotConvertible("it was trained with one class only")
    columns = [1] if classes == 2 and not exact_ties else list(range(max(classes, 1)))
    trees = [
        (target, _tree(part.tree_, part.tree_.value[:, 0, column]))
        for target, column in enumerate(columns)
        for part in parts
    ]
    return TreeEnsemble(trees, len(columns), "mean", len(parts))


def _link(model: Any) -> Link:
    link = type(model._loss.link).__name__
    if link not in LINKS:
        raise NotConvertible(f"boosting with the link {link} cannot be converted")
    return LINKS[link]


def _tree(tree: Any, values: NDArray[np.float64]) -> DecisionTree:
    """Read a `sklearn.tree._tree.Tree`, with one value for each node."""
    return tree_of_arrays(
        tree.children_left < 0,
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        nan_left=tree.missing_go_to_left,
        weight=tree.weighted_n_node_samples,
        value=values,
    )


def _histogram_tree(predictor: Any) -> DecisionTree:
    """Read a `TreePredictor` of histogram gradient boosting, without categorical splits."""
    nodes = predictor.nodes
    return tree_of_arrays(
        nodes["is_leaf"].astype(bool),
        feature=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        left=nodes["left"],
        right=nodes["right"],
        nan_left=nodes["missing_go_to_left"],
        weight=nodes["count"],
        value=nodes["value"],
    )
