"""
Every parameter of every constructor: those that can change what a fitted model answers are tried.

A parameter that stands in neither table fails the first tests, so a new one of a new version of a
library is noticed: try it, or say why it cannot matter.
"""

from __future__ import annotations

import inspect
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import all_estimators
from support import needs

from clewline.errors import NotSupported
from clewline.model.families.sklearn.lowering import _LOWERINGS
from clewline.model.families.sklearn.skl2onnx_forms import STEADY
from clewline.model.register import convert_model
from clewline.model_families import family_named
from clewline.signature.check import Checker

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")
cb = pytest.importorskip("catboost")

ROWS = 240
LEVELS = ["red", "green", "blue", "never trained"]
Settings = dict[str, Any]

# ── boosters ────────────────────────────────────────────────────────────────

TRIED: dict[str, dict[str, list[Settings]]] = {
    "lightgbm": {
        "boosting_type": [
            {"boosting_type": "dart"},
            {"boosting_type": "rf", "subsample_freq": 1, "subsample": 0.6},
        ],
        "objective": [
            *({"objective": name} for name in ("regression", "l1", "huber", "fair", "quantile")),
            *({"objective": name} for name in ("poisson", "tweedie", "gamma", "mape")),
            {"objective": "cross_entropy", "of": "shares"},
        ],
        "class_weight": [{"class_weight": "balanced", "of": "classes"}],
        "n_estimators": [{"n_estimators": 1}],
        "kwargs": [
            {"zero_as_missing": True},
            {"use_missing": False},
            {"linear_tree": True},
            {"reg_sqrt": True},
            {"boost_from_average": False},
            {"sigmoid": 2.5, "of": "classes"},
            {"pred_early_stop": True, "pred_early_stop_freq": 1, "of": "classes"},
            {
                "pred_early_stop": True,
                "pred_early_stop_freq": 1,
                "pred_early_stop_margin": 0.01,
                "of": "classes",
            },
            {"num_iteration_predict": 2},
            {"start_iteration_predict": 2},
            {"objective": "multiclassova", "of": "three"},
        ],
    },
    "xgboost": {
        "missing": [{"missing": 0.0}, {"missing": 1.0}, {"missing": -999.0}],
        "booster": [
            {"booster": "dart", "rate_drop": 0.5},
            {"booster": "gblinear", "of": "numbers"},
        ],
        "base_score": [{"base_score": 0.25}, {"base_score": 0.25, "of": "classes"}],
        "objective": [
            *({"objective": f"reg:{name}"} for name in ("absoluteerror", "pseudohubererror")),
            *({"objective": f"reg:{name}"} for name in ("gamma", "tweedie", "squaredlogerror")),
            {"objective": "count:poisson"},
            {"objective": "reg:quantileerror", "quantile_alpha": 0.7},
        ],
        "enable_categorical": [{"enable_categorical": True}],
        "feature_types": [{"feature_types": ["q", "q", "c"]}],
        "max_cat_to_onehot": [{"max_cat_to_onehot": 1}, {"max_cat_to_onehot": 9}],
        "max_cat_threshold": [{"max_cat_threshold": 1, "max_cat_to_onehot": 1}],
        "multi_strategy": [{"multi_strategy": "multi_output_tree", "of": "three numbers"}],
        "num_parallel_tree": [{"num_parallel_tree": 3}],
        "n_estimators": [{"n_estimators": 1}],
        "tree_method": [{"tree_method": "approx"}],
        "kwargs": [{"one_drop": 1, "booster": "dart"}],
    },
    "catboost": {
        "nan_mode": [{"nan_mode": "Max"}, {"nan_mode": "Min"}],
        "loss_function": [
            *({"loss_function": name} for name in ("MAE", "Quantile", "Poisson", "LogCosh")),
            *({"loss_function": name} for name in ("Expectile:alpha=0.3", "Huber:delta=1", "MAPE")),
            {"loss_function": "Tweedie:variance_power=1.5"},
            {"loss_function": "CrossEntropy", "of": "classes"},
            {"loss_function": "MultiClassOneVsAll", "of": "three"},
        ],
        "grow_policy": [{"grow_policy": "Depthwise"}, {"grow_policy": "Lossguide"}],
        "boost_from_average": [{"boost_from_average": False}, {"boost_from_average": True}],
        "cat_features": [{"cat_features": ["color"]}],
        "one_hot_max_size": [{"one_hot_max_size": 9, "cat_features": ["color"]}],
        "class_names": [{"class_names": [1, 0], "of": "classes"}],
        "posterior_sampling": [{"posterior_sampling": True}],
        "model_shrink_rate": [{"model_shrink_rate": 0.2}],
        "iterations": [{"iterations": 1}],
        "target_border": [{"target_border": 4.0, "loss_function": "Logloss", "of": "values"}],
    },
}
"""Library → parameter → settings that can change how a fitted model answers."""

SAME_NAME = {
    "catboost": "eta max_bin max_depth max_leaves min_child_samples n_estimators num_boost_round "
    "num_leaves num_trees objective random_seed random_state reg_lambda colsample_bylevel",
}
"""Other names of parameters that are tried, or that shape the trees."""

SHAPES_TREES = {
    "lightgbm": "colsample_bytree learning_rate max_depth min_child_samples min_child_weight "
    "min_split_gain num_leaves random_state reg_alpha reg_lambda subsample subsample_for_bin "
    "subsample_freq",
    "xgboost": "colsample_bylevel colsample_bynode colsample_bytree early_stopping_rounds "
    "feature_weights gamma grow_policy interaction_constraints learning_rate max_bin "
    "max_delta_step max_depth max_leaves min_child_weight monotone_constraints random_state "
    "reg_alpha reg_lambda sampling_method scale_pos_weight subsample",
    "catboost": "allow_const_label approx_on_full_history auto_class_weights bagging_temperature "
    "best_model_min_trees boosting_type bootstrap_type border_count class_weights classes_count "
    "combinations_ctr counter_calc_method ctr_history_unit ctr_leaf_count_limit "
    "ctr_target_border_count depth dev_efb_max_buckets dev_score_calc_obj_block_size "
    "dictionaries diffusion_temperature early_stopping_rounds embedding_features eval_fraction "
    "feature_border_type feature_calcers feature_weights final_ctr_computation_mode "
    "first_feature_use_penalties fixed_binary_splits fold_len_multiplier fold_permutation_block "
    "has_time ignored_features input_borders l2_leaf_reg langevin leaf_estimation_backtracking "
    "leaf_estimation_iterations leaf_estimation_method learning_rate max_ctr_complexity "
    "min_data_in_leaf model_shrink_mode model_size_reg monotone_constraints mvs_reg od_pval "
    "od_type od_wait penalties_coefficient per_feature_ctr per_float_feature_quantization "
    "per_object_feature_penalties random_score_type random_strength rsm sampling_frequency "
    "sampling_unit scale_pos_weight score_function simple_ctr sparse_features_conflict_fraction "
    "store_all_simple_ctr subsample text_features text_processing tokenizers use_best_model",
}
"""Parameters that only training reads: the trees and start values in the file hold the result."""

TELLS = {
    "lightgbm": "importance_type n_jobs",
    "xgboost": "callbacks device eval_metric importance_type n_jobs validate_parameters verbosity",
    "catboost": "allow_writing_files callback ctr_description custom_loss custom_metric "
    "data_partition device_config devices eval_metric gpu_cat_features_storage gpu_ram_part kwargs "
    "logging_level metadata metric_period name output_borders params pinned_memory_size "
    "save_snapshot silent snapshot_file snapshot_interval task_type thread_count train_dir "
    "used_ram_limit verbose",
}
"""Parameters of speed, devices, files, names and what is printed."""

CLASSES: dict[str, tuple[Any, Any]] = {
    "lightgbm": (lgb.LGBMRegressor, lgb.LGBMClassifier),
    "xgboost": (xgb.XGBRegressor, xgb.XGBClassifier),
    "catboost": (cb.CatBoostRegressor, cb.CatBoostClassifier),
}
QUICK: dict[str, Settings] = {
    "lightgbm": {"n_estimators": 6, "verbose": -1, "n_jobs": 1, "min_child_samples": 4},
    "xgboost": {"n_estimators": 6, "n_jobs": 1, "enable_categorical": True},
    "catboost": {"iterations": 6, "verbose": 0, "allow_writing_files": False, "thread_count": 1},
}


@pytest.mark.parametrize("library", CLASSES)
def test_every_parameter_of_a_booster_is_tried_or_cannot_matter(library: str) -> None:
    said = {*TRIED[library], *SHAPES_TREES[library].split(), *TELLS[library].split()}
    said |= set(SAME_NAME.get(library, "").split())
    for cls in CLASSES[library]:
        assert parameters(cls) <= said, f"new in {library}: {sorted(parameters(cls) - said)}"


def parameters(cls: Any) -> set[str]:
    """Name the parameters of a constructor; `**kwargs` are those of the classes before it."""
    found: set[str] = set()
    for each in cls.__mro__:
        if "__init__" in vars(each) and each is not object:
            found |= set(inspect.signature(each.__init__).parameters)
            if "kwargs" not in found:
                break
    return found - {"self", "args"}


BOOSTERS = [
    (library, settings)
    for library, table in TRIED.items()
    for tried in table.values()
    for settings in tried
]


@pytest.mark.parametrize(
    ("library", "settings"),
    BOOSTERS,
    ids=[f"{library} {settings}" for library, settings in BOOSTERS],
)
def test_a_booster_is_served_as_it_answers(library: str, settings: Settings) -> None:
    said = dict(settings)
    task = said.pop("of", "values")
    is_value = task in ("values", "shares", "numbers") and "target_border" not in said
    cls = CLASSES[library][0 if is_value else 1]
    plain = library == "catboost" and "cat_features" not in said
    table = numbers() if plain or task.endswith("numbers") else numbers_and_color()
    if "cat_features" in said:
        table = table.assign(color=table["color"].astype(object))
    same_as_served(cls(**(QUICK[library] | said)), table, target_of(task))


# ── scikit-learn: what we read or let convert ───────────────────────────────

TREES = {
    f"{kind}{task}"
    for kind in ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees", "GradientBoosting")
    for task in ("Classifier", "Regressor")
} | {"HistGradientBoostingClassifier", "HistGradientBoostingRegressor"}

FITTED = frozenset(
    [
        "force_int_remainder_cols",  # before scikit-learn 1.7
        "store_cv_values",  # before scikit-learn 1.7
        "C",
        "Cs",
        "algorithm",
        "alpha",
        "alpha_1",
        "alpha_2",
        "alpha_init",
        "alpha_per_target",
        "alphas",
        "average",
        "batch_size",
        "beta_1",
        "beta_2",
        "bootstrap",
        "ccp_alpha",
        "class_prior",
        "class_weight",
        "compute_inverse_components",
        "compute_score",
        "copy",
        "copy_X",
        "covariance_estimator",
        "criterion",
        "cv",
        "dtype",
        "dual",
        "early_stopping",
        "eps",
        "epsilon",
        "eta0",
        "feature_name_combiner",
        "fit_intercept",
        "fit_path",
        "fit_prior",
        "force_alpha",
        "gcv_mode",
        "importance_getter",
        "init_training",
        "interaction_cst",
        "intercept_scaling",
        "is_data_valid",
        "is_model_valid",
        "iterated_power",
        "jitter",
        "l1_ratio",
        "l1_ratios",
        "l2_regularization",
        "lambda_1",
        "lambda_2",
        "lambda_init",
        "learning_rate",
        "learning_rate_init",
        "max_bins",
        "max_depth",
        "max_features",
        "max_fun",
        "max_iter",
        "max_leaf_nodes",
        "max_n_alphas",
        "max_samples",
        "max_skips",
        "max_subpopulation",
        "max_trials",
        "memory",
        "min_features_to_select",
        "min_impurity_decrease",
        "min_samples",
        "min_samples_leaf",
        "min_samples_split",
        "min_weight_fraction_leaf",
        "momentum",
        "monotonic_cst",
        "multi_class",
        "n_components",
        "n_estimators",
        "n_features_to_select",
        "n_iter",
        "n_iter_no_change",
        "n_jobs",
        "n_nonzero_coefs",
        "n_oversamples",
        "n_subsamples",
        "nesterovs_momentum",
        "noise_variance",
        "norm_order",
        "oob_score",
        "penalty",
        "positive",
        "power_iteration_normalizer",
        "power_t",
        "precompute",
        "prefit",
        "priors",
        "quantile",
        "quantile_range",
        "random_state",
        "refit",
        "residual_threshold",
        "scoring",
        "selection",
        "shrinkage",
        "shuffle",
        "smooth",
        "solver",
        "solver_options",
        "splitter",
        "step",
        "stop_n_inliers",
        "stop_probability",
        "stop_score",
        "store_covariance",
        "store_cv_results",
        "subsample",
        "svd_solver",
        "tol",
        "threshold_lambda",
        "use_legacy_attributes",
        "validation_fraction",
        "var_smoothing",
        "verbose",
        "verbose_feature_names_out",
        "warm_start",
        "accept_sparse",
        "check_inverse",
        "feature_names_out",
        "inv_kw_args",
        "inverse_func",
        "categories",
        "target_type",
        "order",
        "param",
        "mode",
        "score_func",
        "k",
        "percentile",
        "n_alphas",
        "transform_input",
        "steps",
        "transformers",
        "transformer_list",
        "estimators",
        "estimator",
        "max_categories",
    ]
)
"""Parameters that only `fit` reads; fitted arrays, which are what is converted, hold the result."""

USED: dict[str, dict[str, tuple[Any, ...]]] = {
    "ComplementNB": {"norm": (True, False)},
    "FunctionTransformer": {"func": (), "kw_args": (), "validate": (True,)},
    "MaxAbsScaler": {"clip": (True,)},
    "MinMaxScaler": {"clip": (True,), "feature_range": ((-2, 3),)},
    "MLPClassifier": {
        "activation": ("identity", "logistic", "tanh", "relu"),
        "hidden_layer_sizes": ((4, 3),),
    },
    "MLPRegressor": {
        "activation": ("identity", "logistic", "tanh", "relu"),
        "hidden_layer_sizes": ((4, 3),),
        "loss": ("poisson",),
    },
    "Normalizer": {"norm": ("l1", "l2", "max")},
    "OneHotEncoder": {
        "drop": ("first", "if_binary"),
        "handle_unknown": ("ignore", "infrequent_if_exist", "warn"),
        "min_frequency": (70,),
        "sparse_output": (True, False),
    },
    "OrdinalEncoder": {
        "handle_unknown": (),
        "unknown_value": (-1, np.nan),
        "encoded_missing_value": (-7,),
        "min_frequency": (70,),
    },
    "PCA": {"whiten": (True,)},
    "IncrementalPCA": {"whiten": (True,)},
    "PLSRegression": {"scale": (False,)},
    "PolynomialFeatures": {"degree": (3,), "interaction_only": (True,), "include_bias": (False,)},
    "RobustScaler": {
        "with_centering": (False,),
        "with_scaling": (False,),
        "unit_variance": (True,),
    },
    "SGDClassifier": {
        "loss": ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron")
    },
    "SGDRegressor": {"loss": ("squared_error", "huber")},
    "SelectFromModel": {"threshold": ("mean", 0.1)},
    "SimpleImputer": {
        "strategy": ("mean", "median", "most_frequent", "constant"),
        "fill_value": (),
        "missing_values": (0.0,),
        "add_indicator": (True,),
        "keep_empty_features": (True,),
    },
    "StandardScaler": {"with_mean": (False,), "with_std": (False,)},
    "TweedieRegressor": {"power": (0, 1, 1.5), "link": ("identity", "log")},
    "VarianceThreshold": {"threshold": (0.1,)},
    "VotingRegressor": {"weights": ([1, 3],)},
    "ColumnTransformer": {
        "remainder": ("drop", "passthrough"),
        "sparse_threshold": (0.0, 1.0),
        "transformer_weights": ({"a": 2.0},),
    },
    "FeatureUnion": {"transformer_weights": ({"a": 3.0},)},
    "GradientBoostingClassifier": {
        "loss": ("log_loss", "exponential"),
        "init": ("zero", LogisticRegression()),
    },
    "GradientBoostingRegressor": {
        "loss": ("squared_error", "absolute_error", "huber", "quantile"),
        "init": ("zero", LinearRegression()),
    },
    "HistGradientBoostingClassifier": {"categorical_features": ("from_dtype",), "loss": ()},
    "HistGradientBoostingRegressor": {
        "categorical_features": ("from_dtype",),
        "loss": ("squared_error", "absolute_error", "poisson", "gamma"),
    },
    "GaussianRandomProjection": {},
    "LinearSVC": {"loss": ("hinge", "squared_hinge")},
    "LinearSVR": {"loss": ("squared_epsilon_insensitive",)},
    "PassiveAggressiveClassifier": {"loss": ("hinge",)},
    "PassiveAggressiveRegressor": {"loss": ("epsilon_insensitive",)},
    "RANSACRegressor": {"loss": ("squared_error",)},
}
"""Class → parameter → values that `predict` or `transform` reads; () where others try it."""


@cache
def known() -> dict[str, Any]:
    found = dict(all_estimators())
    return {n: found[n] for n in sorted({*STEADY, *_LOWERINGS, *TREES}) if n in found}


def test_every_parameter_of_what_is_converted_is_tried_or_cannot_matter() -> None:
    new = {
        name: sorted(left)
        for name, cls in known().items()
        if (left := parameters(cls) - FITTED - set(USED.get(name, {})))
    }
    assert not new, f"new in scikit-learn: {new}"


ESTIMATORS = [
    pytest.param(
        name,
        parameter,
        value,
        id=f"{name}({parameter}={value})",
        marks=needs("scikit-learn", "1.6") if value == "warn" else (),
    )
    for name, table in USED.items()
    for parameter, values in table.items()
    for value in values
]


@pytest.mark.parametrize(("name", "parameter", "value"), ESTIMATORS)
@pytest.mark.filterwarnings("ignore:Class PassiveAggressive:FutureWarning")
def test_an_estimator_is_served_as_it_answers(name: str, parameter: str, value: Any) -> None:
    cls = known().get(name)
    if cls is None or parameter not in parameters(cls):
        pytest.skip(f"this version of scikit-learn has no {name}({parameter})")
    model, table = pipeline_with(cls, {parameter: value})
    classes = hasattr(model[-1], "predict_proba") or "Classif" in name or name in CLASSIFIERS
    same_as_served(model, table, target_of("classes" if classes else "values"))


CLASSIFIERS = ("LinearSVC", "SGDClassifier", "ComplementNB")


def pipeline_with(cls: Any, said: Settings) -> tuple[Any, pd.DataFrame]:
    """Return a pipeline around an estimator, and a table for it."""
    name = cls.__name__
    said = dict(said)
    if "n_components" in parameters(cls):
        said["n_components"] = 2
    for slow, value in (("max_iter", 40), ("n_estimators", 5), ("random_state", 0)):
        if slow in parameters(cls):
            said.setdefault(slow, value)
    filled = numbers().fillna(1.5)
    if name in ("OneHotEncoder", "OrdinalEncoder"):
        if name == "OneHotEncoder":
            said.setdefault("handle_unknown", "ignore")
        else:
            said = {"handle_unknown": "use_encoded_value", "unknown_value": -2} | said
        rest = "passthrough"
        prepare = ColumnTransformer([("a", cls(**said), ["color"])], remainder=rest)
        colors = numbers_and_color().fillna({"a": 0.5, "b": 0.5})
        return make_pipeline(prepare, known()["DecisionTreeRegressor"]()), colors.assign(
            color=colors["color"].astype(object)
        )
    if name == "ColumnTransformer":
        both = [("a", StandardScaler(), ["a"]), ("b", MinMaxScaler(), ["b"])]
        return make_pipeline(cls(both, **said), Ridge()), filled
    if name == "FeatureUnion":
        return make_pipeline(
            cls([("a", StandardScaler()), ("b", MinMaxScaler())], **said), Ridge()
        ), filled
    if name == "SelectFromModel":
        return make_pipeline(cls(Ridge(), **said), Ridge()), filled
    if name == "VotingRegressor":
        return make_pipeline(cls([("a", Ridge()), ("b", LinearRegression())], **said)), filled
    if name.startswith("HistGradient"):
        return make_pipeline(
            cls(**said)
        ), numbers_and_color() if "categorical_features" in said else numbers()
    if name == "SimpleImputer":
        table = filled if "missing_values" in said else numbers()
        return make_pipeline(cls(**said), Ridge()), table
    if hasattr(cls, "transform") and not hasattr(cls, "predict"):
        return make_pipeline(cls(**said), Ridge()), filled
    if name == "ComplementNB":
        return make_pipeline(MinMaxScaler(clip=True), cls(**said)), filled
    if name.startswith(("MLP", "SGD", "Passive", "Linear", "Tweedie")):
        return make_pipeline(StandardScaler(), cls(**said)), filled
    return make_pipeline(cls(**said)), filled


# ── tables and the comparison ───────────────────────────────────────────────


@cache
def numbers() -> pd.DataFrame:
    draw = np.random.default_rng(5)
    a, b = draw.normal(2, 1, ROWS), draw.normal(0, 3, ROWS)
    a[draw.random(ROWS) < 0.15] = np.nan
    b[draw.random(ROWS) < 0.1] = 0.0
    b[draw.random(ROWS) < 0.1] = np.nan
    return pd.DataFrame({"a": a, "b": b})


@cache
def numbers_and_color() -> pd.DataFrame:
    draw = np.random.default_rng(6)
    color = pd.Categorical(draw.choice(LEVELS[:3], ROWS), categories=LEVELS)
    return numbers().assign(color=color)


@cache
def target_of(task: str) -> Any:
    table = numbers_and_color()
    score = table.a.fillna(6) * 2 + table.b.fillna(-4) / 2 + (table.color == "red") * 3
    score = score - score.min() + 0.1
    if task == "shares":
        score = score / score.max()
    cuts = [score.median()] if task == "classes" else [3.0, 6.0]
    is_class = task in ("classes", "three", "three numbers")
    return (pd.Series(np.digitize(score, cuts)) if is_class else score).to_numpy()


def same_as_served(model: Any, table: pd.DataFrame, target: Any) -> None:
    """Fit, register and ask rows that the model has not seen."""
    with warnings.catch_warnings(action="ignore"):
        model.fit(table, target)
        shown = model.predict_proba(table) if hasattr(model, "predict_proba") else None
        said = np.asarray(model.predict(table)).reshape(-1) if shown is not None else target
        try:
            made = convert_model(
                model, train=table.assign(y=said if shown is not None else target), target="y"
            )
        except NotSupported:
            return  # it says that it cannot; nothing wrong is served
        asked = probes(table)
        loaded = family_named(made.compiled.runtime).load(made.files, made.signature)
        found = loaded.predict(Checker(made.signature).table(asked).columns)
        own = np.asarray(model.predict(asked)).reshape(-1)
        if found.values is not None:
            scale = np.abs(np.asarray(model.predict(table))).max()
            np.testing.assert_allclose(found.values, own, atol=1e-6 * scale, rtol=1e-6)
            return
        labels = np.array(made.signature.output.labels)
        assert labels[found.choices].tolist() == own.tolist()
        if found.probabilities is not None:
            order = [model.classes_.tolist().index(label) for label in labels.tolist()]
            shares = np.asarray(model.predict_proba(asked))[:, order]
            np.testing.assert_allclose(found.probabilities, shares, atol=1e-6)


def probes(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of zeros, ones, negative, huge and fresh values, nulls and unseen levels."""
    draw = np.random.default_rng(8)
    values = [0.0, -0.0, 1.0, -999.0, 1e6, 1e-40, 0.5]
    rows = pd.DataFrame({"a": np.repeat(values, len(values)), "b": np.tile(values, len(values))})
    fresh = pd.DataFrame({"a": draw.normal(2, 1, 60), "b": draw.normal(0, 3, 60)})
    rows = pd.concat([rows, fresh], ignore_index=True)
    if table["a"].isna().any():
        rows.loc[::5, "a"] = np.nan
        rows.loc[::7, "b"] = np.nan
    if "color" in table:
        color = np.array(LEVELS)[np.arange(len(rows)) % 4]
        rows["color"] = pd.Series(color, dtype=table["color"].dtype)
    return rows
