"""
Random models of every family, fitted on random small tables, and rows that they have not seen.

Estimators come from `sklearn.utils.all_estimators`, and their parameters from the constraints that
scikit-learn declares, so a new version of the library brings its new ones along.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

TARGET = "y"
ATTEMPTS = 30
"""Most models that are drawn for one place until one can be fitted."""

KEPT_PARAMETERS = frozenset(
    {
        *("cache_size", "copy", "copy_X", "cv", "dtype", "error_score", "max_iter"),
        *("max_no_improvement", "max_subpopulation"),
        *("max_samples", "max_trials", "memory", "min_samples", "n_components", "n_jobs"),
        *("n_quantiles", "random_state", "verbose", "verbose_feature_names_out", "sample_steps"),
        *("store_cv_results", "store_cv_values", "subsample", "max_leaf_nodes", "batch_size"),
        *("n_alphas", "alphas", "Cs", "random_state_subsampling", "n_iter", "n_nearest_features"),
        *("stop_words", "input", "encoding", "decode_error", "gen_min_span_tree"),
    }
)  # fmt: skip
"""Parameters that are not drawn: they cost time, or cannot change what a fitted model answers."""

QUICK = {
    "n_estimators": (1, 2, 5, 10),
    "max_iter": (5, 20, 60),
    "n_components": (1, 2, 3),
    "n_quantiles": (5, 20),
    "n_clusters": (2, 3),
    "n_init": (1,),
    "max_leaf_nodes": (4, 31),
    "hidden_layer_sizes": ((5,), (4, 3)),
    "cv": (2,),
    "degree": (2,),
    "n_neighbors": (1, 3, 5),
    "n_bins": (3, 4),
    "max_subpopulation": (50,),
    "n_features_to_select": (2,),
    "k": (2,),
}
"""Parameters that every estimator gets which has them, so that it is quick on small tables."""

EXCLUDED = {
    "ClassifierChain": "needs several targets",
    "MultiOutputClassifier": "several targets are drawn apart",
    "MultiOutputRegressor": "several targets are drawn apart",
    "RegressorChain": "needs several targets",
    "MultiTaskElasticNet": "needs several targets",
    "MultiTaskElasticNetCV": "needs several targets",
    "MultiTaskLasso": "needs several targets",
    "MultiTaskLassoCV": "needs several targets",
    "CCA": "needs several targets",
    "PLSCanonical": "needs several targets",
    "PLSSVD": "needs several targets",
    "IsotonicRegression": "takes one column alone",
    "SparseCoder": "needs a dictionary",
    "DictVectorizer": "takes dictionaries",
    "FeatureHasher": "takes dictionaries",
    "PatchExtractor": "takes images",
    "LabelBinarizer": "is for targets",
    "LabelEncoder": "is for targets",
    "MultiLabelBinarizer": "is for targets",
    "KernelCenterer": "takes kernels",
    "HashingVectorizer": "texts are drawn apart",
    "CountVectorizer": "texts are drawn apart",
    "TfidfVectorizer": "texts are drawn apart",
    "TfidfTransformer": "texts are drawn apart",
    "ColumnTransformer": "drawn around the others",
    "FeatureUnion": "drawn around the others",
    "FrozenEstimator": "needs a fitted estimator",
}


@dataclass(frozen=True)
class Case:
    """A fitted model, the table that it was fitted on, and rows that it has not seen."""

    title: str
    model: Any
    train: Any  # pandas or Polars, with the target
    rows: pd.DataFrame  # without it; of the column types of the training table
    frame: str  # what the model takes: pandas, polars, numpy, texts
    bare: Any = None  # the booster of the model alone, if that is what is registered
    several: bool = False  # whether it answers several targets, and must be refused

    @property
    def is_regression(self) -> bool:
        """Whether the model answers with numbers."""
        from sklearn.base import is_regressor

        return bool(is_regressor(self.model))

    @property
    def train_rows(self) -> pd.DataFrame:
        """The rows that the model was fitted on, without the target."""
        table = self.train if isinstance(self.train, pd.DataFrame) else self.train.to_pandas()
        return table.drop(columns=TARGET).astype(self.rows.dtypes)

    def given(self, rows: pd.DataFrame) -> Any:
        """Return rows as the model takes them."""
        if self.frame == "texts":
            return rows.iloc[:, 0].tolist()
        if self.frame == "numpy":
            return rows.to_numpy()
        return to_polars(rows) if self.frame == "polars" else rows


def random_case(seed: int, index: int) -> Case:
    """Return the model of a place in a hunt; the same for the same seed and place."""
    for attempt in range(ATTEMPTS):
        draw = np.random.default_rng([seed, index, attempt])
        try:
            with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
                return _Drawer(draw, index).case()
        except Exception:  # whatever a library says of a combination that it does not fit
            continue
    raise RuntimeError(f"none of {ATTEMPTS} models could be fitted: seed {seed}, place {index}")


def to_polars(rows: pd.DataFrame) -> Any:
    """Return a pandas table as Polars has it, categories as strings."""
    import polars as pl

    columns = {}
    for name in rows:
        column = rows[name]
        is_text = column.dtype == object or isinstance(column.dtype, pd.CategoricalDtype)
        plain = column.astype(object)
        cells = plain.where(plain.notna(), None).tolist() if is_text else column.to_numpy()
        columns[name] = pl.Series(cells, dtype=pl.String if is_text else None)
    return pl.DataFrame(columns)


@cache
def estimators(kind: str) -> tuple[tuple[str, type], ...]:
    """Return scikit-learn's estimators of a kind: classifier, regressor, transformer."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.utils import all_estimators

    return tuple((n, each) for n, each in all_estimators(type_filter=kind) if n not in EXCLUDED)


class _Drawer:
    """Draws one case."""

    def __init__(self, draw: np.random.Generator, index: int) -> None:
        self.draw, self.index = draw, index
        self.task = self.one("regression", "binary", "binary", "multiclass")

    # ── chances ─────────────────────────────────────────────────────────────

    def one(self, *values: Any) -> Any:
        return values[int(self.draw.integers(len(values)))]

    def chance(self, share: float) -> bool:
        return bool(self.draw.random() < share)

    # ── tables ──────────────────────────────────────────────────────────────

    def columns(self) -> dict[str, Callable[[int], Any]]:
        """Return what makes the values of each column."""
        kinds = ["number"] * 3 + ["skewed", "lattice", "float32", "integer", "large", "boolean"]
        kinds += ["constant", "gaps", "text", "text", "category", "date"]
        if self.chance(0.45):  # numbers alone
            kinds = kinds[: self.one(2, 5, 7, 9, 11)]
        count = int(self.draw.integers(2, 7))
        return {f"f{i}": getattr(self, f"_{self.one(*kinds)}")() for i in range(count)}

    def _number(self) -> Any:
        mean, scale = self.one(0.0, 3.0, -50.0), self.one(0.1, 1.0, 30.0)
        return lambda n: self.draw.normal(mean, scale, n)

    def _skewed(self) -> Any:
        return lambda n: self.draw.lognormal(3, 2, n)

    def _lattice(self) -> Any:
        return lambda n: np.round(self.draw.normal(0, 1, n), 1)

    def _float32(self) -> Any:
        return lambda n: self.draw.normal(0, 2, n).astype(np.float32)

    def _integer(self) -> Any:
        return lambda n: self.draw.integers(-3, 9, n)

    def _large(self) -> Any:
        return lambda n: self.draw.integers(0, 10**7, n)

    def _boolean(self) -> Any:
        return lambda n: self.draw.random(n) < 0.4

    def _constant(self) -> Any:
        value = self.one(0.0, 7.25)
        return lambda n: np.full(n, value)

    def _gaps(self) -> Any:
        share = self.one(0.1, 0.6)

        def make(n: int) -> Any:
            values = self.draw.normal(0, 1, n)
            values[self.draw.random(n) < share] = np.nan
            return values

        return make

    def _text(self) -> Any:
        words = np.array(["ant", "bee", "cat", "None", "nan", ""][: self.one(2, 3, 6)], object)
        share = self.one(0.0, 0.0, 0.15)

        def make(n: int) -> Any:
            values = self.draw.choice(words, n)
            values[self.draw.random(n) < share] = None
            return pd.Series(values, dtype=object)

        return make

    def _category(self) -> Any:
        words, declared = ["red", "green", "blue"], ["red", "green", "blue", "unseen"]
        return lambda n: pd.Categorical(self.draw.choice(words, n), categories=declared)

    def _date(self) -> Any:
        start = np.datetime64("2020-01-01")
        return lambda n: start + self.draw.integers(0, 2000, n).astype("timedelta64[D]")

    def target(self, table: pd.DataFrame) -> Any:
        """Return a target that depends on some columns."""
        score = self.draw.normal(0, 0.5, len(table))
        for name in table:
            column = table[name]
            if column.dtype.kind in "fiub":
                values = np.nan_to_num(column.to_numpy(np.float64))
                score += self.draw.normal() * (values - values.mean()) / (values.std() or 1.0)
            elif column.dtype.kind != "M":
                score += (column.astype(object) == "ant").to_numpy() * 2.0
        if self.task == "regression":
            return self.one(score * 10, np.round(score), np.exp(np.clip(score, -3, 3)), score)
        cuts = [self.one(0.5, 0.5, 0.9)] if self.task == "binary" else [0.3, self.one(0.6, 0.95)]
        place = np.digitize(score, np.quantile(score, cuts))
        labels = self.one(["no", "yes", "zebra"], [0, 1, 2], [0, 1, 2], [3, 7, 11])
        if self.task == "binary" and self.chance(0.1):
            labels = [False, True]
        return np.array(labels)[place]

    # ── parameters ──────────────────────────────────────────────────────────

    def build(self, cls: type, depth: int = 0) -> Any:
        """Return an estimator with random parameters."""
        import inspect

        constraints: dict[str, Any] = getattr(cls, "_parameter_constraints", {}) or {}
        taken = inspect.signature(cls.__init__).parameters
        chosen = {name: self.one(*values) for name, values in QUICK.items() if name in taken}
        if "random_state" in taken:
            chosen["random_state"] = 0
        share = self.one(0.0, 0.1, 0.3)
        for name, allowed in constraints.items():
            if name in KEPT_PARAMETERS or name in chosen or not self.chance(share):
                continue
            if isinstance(allowed, list) and (values := self._values(allowed)):
                chosen[name] = self.one(*values)
        for name in ("estimator", "base_estimator", "regressor", "final_estimator"):
            if name in taken and depth < 2:
                chosen[name] = self.inner(cls, depth)
        if "estimators" in taken:
            parts = [(f"e{i}", self.inner(cls, depth)) for i in range(2)]
            chosen["estimators"] = parts
        if "transformers" in taken or "transformer_list" in taken:
            raise ValueError("drawn apart")
        if cls.__name__ in ("GridSearchCV", "HalvingGridSearchCV"):
            chosen["param_grid"] = {}
        if "SearchCV" in cls.__name__ and "Random" in cls.__name__:
            chosen["param_distributions"] = {}
        return cls(**chosen)

    def _values(self, allowed: list[Any]) -> list[Any]:
        values: list[Any] = []
        for each in allowed:
            name = type(each).__name__
            if each is None:
                values.append(None)
            elif each == "boolean" or each is bool:
                values += [False, True]
            elif name in ("StrOptions", "Options"):
                hidden = getattr(each, "deprecated", set())
                values += sorted((o for o in each.options if o not in hidden), key=repr)
            elif name == "Interval":
                values += self._interval(each)
        return values

    def _interval(self, interval: Any) -> list[Any]:
        tried: tuple[Any, ...] = (0, 1, 2, 3, 5)
        if interval.type is not Integral:
            tried = (0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0, 1.5, 5.0)
        kind = int if interval.type is Integral else float
        assert interval.type in (Integral, Real) or kind is float
        return [kind(value) for value in tried if value in interval]

    def inner(self, cls: type, depth: int) -> Any:
        """Return an estimator to stand in a meta-estimator."""
        wanted = "regressor" if self.task == "regression" else "classifier"
        name = cls.__name__
        if name.endswith("Regressor") or name.startswith("TransformedTarget"):
            wanted = "regressor"
        if self.chance(0.6):
            return self.common(wanted)
        return self.build(self.one(*estimators(wanted))[1], depth + 1)

    def common(self, kind: str) -> Any:
        """Return an estimator that people often use."""
        from sklearn import ensemble, linear_model, neighbors, svm, tree

        end = kind.capitalize()
        regression = kind == "regressor"
        return self.one(
            lambda: self.build(getattr(tree, f"DecisionTree{end}")),
            lambda: self.build(getattr(ensemble, f"RandomForest{end}")),
            lambda: self.build(getattr(ensemble, f"ExtraTrees{end}")),
            lambda: self.build(getattr(ensemble, f"GradientBoosting{end}")),
            lambda: self.build(getattr(ensemble, f"HistGradientBoosting{end}")),
            lambda: self.build(getattr(neighbors, f"KNeighbors{end}")),
            lambda: self.build(
                linear_model.Ridge if regression else linear_model.LogisticRegression
            ),
            lambda: self.build(svm.SVR if regression else svm.SVC),
        )()

    def booster(self) -> Any:
        """Return a booster with random parameters."""
        return self.one(self._lightgbm, self._xgboost, self._catboost)()

    def some(self, share: float, **choices: Any) -> dict[str, Any]:
        """Draw a value for some of these parameters."""
        return {name: self.one(*values) for name, values in choices.items() if self.chance(share)}

    def _lightgbm(self) -> Any:
        import lightgbm

        shared = self.some(
            0.2,
            boosting_type=("gbdt", "dart", "rf"),
            zero_as_missing=(True,),
            use_missing=(False,),
            linear_tree=(True,),
            extra_trees=(True,),
            max_bin=(4, 15),
            min_child_samples=(1, 5),
            max_depth=(1, 3),
            num_leaves=(2, 7),
            reg_lambda=(0.0, 5.0),
            cat_smooth=(1.0,),
            min_data_per_group=(1,),
            max_cat_to_onehot=(1, 10),
            boost_from_average=(False,),
            path_smooth=(1.0,),
            sigmoid=(0.5, 2.0),
            is_unbalance=(True,),
        )
        if shared.get("boosting_type") == "rf":
            shared |= {"bagging_freq": 1, "bagging_fraction": 0.6}
        shared |= {"verbose": -1, "n_jobs": 1, "n_estimators": self.one(1, 5, 20)}
        if self.task != "regression":
            named = "multiclassova" if self.task == "multiclass" and self.chance(0.3) else None
            return lightgbm.LGBMClassifier(objective=named, **shared)
        objective = self.one("regression", "l1", "huber", "fair", "poisson", "quantile", "mape")
        shared |= self.some(0.3, reg_sqrt=(True,)) if objective == "regression" else {}
        return lightgbm.LGBMRegressor(objective=objective, **shared)

    def _xgboost(self) -> Any:
        import xgboost

        shared = self.some(
            0.2,
            booster=("gbtree", "dart", "gblinear"),
            missing=(0.0, 1.0),
            base_score=(0.2, 0.5),
            max_cat_to_onehot=(1, 2, 10),
            max_cat_threshold=(1, 64),
            tree_method=("exact", "hist", "approx"),
            grow_policy=("lossguide",),
            max_depth=(1, 3, 0),
            min_child_weight=(0.0,),
            num_parallel_tree=(2,),
            gamma=(0.5,),
            rate_drop=(0.3,),
            multi_strategy=("multi_output_tree",),
            scale_pos_weight=(3.0,),
            learning_rate=(0.05, 1.0),
            max_leaves=(4,),
        )
        shared |= {"n_jobs": 1, "n_estimators": self.one(1, 5, 20), "enable_categorical": True}
        if self.task != "regression":
            cls = self.one(xgboost.XGBClassifier, xgboost.XGBClassifier, xgboost.XGBRFClassifier)
            return cls(**shared)
        objective = self.one(
            *("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "count:poisson"),
            *("reg:tweedie", "reg:gamma", "reg:squaredlogerror", "reg:logistic"),
        )
        cls = self.one(xgboost.XGBRegressor, xgboost.XGBRegressor, xgboost.XGBRFRegressor)
        return cls(objective=objective, **shared)

    def _catboost(self) -> Any:
        import catboost

        shared = self.some(
            0.2,
            nan_mode=("Min", "Max"),
            grow_policy=("SymmetricTree", "Depthwise", "Lossguide"),
            boosting_type=("Ordered", "Plain"),
            depth=(1, 3),
            l2_leaf_reg=(0.1, 10.0),
            border_count=(3, 32),
            bootstrap_type=("No", "Bernoulli"),
            leaf_estimation_iterations=(3,),
            model_shrink_rate=(0.1,),
            langevin=(True,),
            boost_from_average=(False,),
            feature_border_type=("Uniform", "Median"),
        )
        shared |= {"verbose": 0, "allow_writing_files": False, "thread_count": 1}
        shared |= {"iterations": self.one(1, 5, 20), "random_seed": 0}
        if self.task != "regression":
            return catboost.CatBoostClassifier(**shared)
        loss = self.one(
            "RMSE", "MAE", "Quantile", "Poisson", "LogCosh", "MAPE", "Tweedie:variance_power=1.5"
        )
        return catboost.CatBoostRegressor(loss_function=loss, **shared)

    # ── pipelines ───────────────────────────────────────────────────────────

    def transformer(self) -> Any:
        """Return a transformer: each of scikit-learn's in turn, from place to place."""
        every = estimators("transformer")
        place = self.index if self.chance(0.5) else int(self.draw.integers(len(every)))
        return self.build(every[place % len(every)][1])

    def common_transformer(self) -> Any:
        from sklearn import decomposition, preprocessing

        names = ("StandardScaler", "MinMaxScaler", "RobustScaler", "MaxAbsScaler", "Normalizer")
        names += (
            "QuantileTransformer",
            "PowerTransformer",
            "PolynomialFeatures",
            "KBinsDiscretizer",
        )
        if self.chance(0.3):
            return self.build(self.one(decomposition.PCA, decomposition.TruncatedSVD))
        return self.build(getattr(preprocessing, self.one(*names)))

    def numeric_steps(self, has_gaps: bool) -> list[Any]:
        """Return transformers of numbers."""
        from sklearn.impute import SimpleImputer

        steps: list[Any] = []
        if has_gaps and self.chance(0.8):
            steps.append(self.build(SimpleImputer))
        steps += [
            self.transformer() if self.chance(0.5) else self.common_transformer()
            for _ in range(self.one(0, 0, 1, 1, 1, 2))
        ]
        if len(steps) > 1 and self.chance(0.15):
            from sklearn.pipeline import make_union

            return [*steps[:-2], make_union(*steps[-2:])]
        return steps

    def encoder(self) -> Any:
        from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

        if self.chance(0.6):
            said = {"handle_unknown": self.one("ignore", "infrequent_if_exist")}
            said |= self.some(0.3, drop=("first", "if_binary"), min_frequency=(3,))
            return OneHotEncoder(sparse_output=self.chance(0.5), **said)
        if self.chance(0.6):
            said = {"handle_unknown": "use_encoded_value", "unknown_value": self.one(-1, np.nan)}
            return OrdinalEncoder(**said, **self.some(0.3, min_frequency=(3,)))
        return self.build(TargetEncoder)

    def final(self) -> Any:
        """Return what predicts."""
        if self.chance(0.25):
            return self.booster()
        kind = "regressor" if self.task == "regression" else "classifier"
        if self.chance(0.45):
            return self.common(kind)
        every = estimators(kind)
        return self.build(every[int(self.draw.integers(len(every)))][1])

    def case(self) -> Case:
        """Draw a table, fit a model on it, and draw rows that it has not seen."""
        if self.chance(0.06):
            return self.text_case()
        if self.chance(0.08):
            return self.booster_case()
        if self.chance(0.04):
            return self.targets_case()
        makers = self.columns()
        rows = self.one(12, 40, 120, 120)
        table = pd.DataFrame({name: make(rows) for name, make in makers.items()})
        unseen = pd.DataFrame({name: make(40) for name, make in makers.items()})
        target = self.target(table)
        numeric = [n for n in table if table[n].dtype.kind in "fiub"]
        others = [n for n in table if n not in numeric]
        frame = (
            self.one("pandas", "pandas", "polars", "numpy")
            if not others
            else self.one("pandas", "pandas", "polars")
        )
        gaps = bool(table[numeric].isna().any().any())
        if len(others) == len(table.columns) and not numeric:
            raise ValueError("no numbers")
        final, only = self.final(), self.chance(0.1)
        steps = self.numeric_steps(gaps)
        if self.chance(0.08):
            steps = [*steps, self.sparse_transformer()]
        if others:
            steps = self.mixed(table, numeric, others, steps, frame, final)
        from sklearn.pipeline import make_pipeline

        if only and steps:
            model = make_pipeline(*steps)
        else:
            model = make_pipeline(*steps, final) if steps else final
        case = Case("", model, table, unseen, frame)
        model.fit(case.given(table), target)
        # Some libraries see only here that they have no answer, or none for a single row.
        for method in ("predict", "predict_proba") if hasattr(model, "predict") else ("transform",):
            if hasattr(model, method):
                getattr(model, method)(case.given(table))
        train = table.assign(**{TARGET: target})
        title = " ".join(repr(model).split())
        return Case(
            title,
            model,
            to_polars(train) if frame == "polars" else train,
            self.rows(unseen, table),
            frame,
        )

    def sparse_transformer(self) -> Any:
        """Return a transformer that gives a sparse matrix."""
        from sklearn import ensemble, preprocessing

        return self.one(
            lambda: preprocessing.OneHotEncoder(handle_unknown="ignore", min_frequency=3),
            lambda: preprocessing.KBinsDiscretizer(n_bins=3, encode="onehot", subsample=None),
            lambda: preprocessing.SplineTransformer(n_knots=3, sparse_output=True),
            lambda: ensemble.RandomTreesEmbedding(n_estimators=3, max_depth=2, random_state=0),
        )()

    def booster_case(self) -> Case:
        """Draw a booster that stands alone, with categories of its own; often the bare object."""
        kinds = ["number", "skewed", "lattice", "float32", "integer", "gaps", "boolean"]
        made = {f"f{i}": getattr(self, f"_{self.one(*kinds)}")() for i in range(self.one(2, 4))}
        model = self.booster()
        library = type(model).__module__.partition(".")[0]
        categories = [f"c{i}" for i in range(self.one(0, 1, 2))]
        for name in categories:
            made[name] = self._category()
        rows = self.one(40, 120, 400)
        table = pd.DataFrame({name: make(rows) for name, make in made.items()})
        unseen = pd.DataFrame({name: make(40) for name, make in made.items()})
        target = self.target(table)
        if self.task != "regression":
            target = np.unique(target, return_inverse=True)[1]
        given = {}
        if library == "catboost":
            as_text = dict.fromkeys(categories, "str")
            table, unseen = table.astype(as_text), unseen.astype(as_text)
            given = {"cat_features": categories}
        model.fit(table, target, **given)
        model.predict(table)
        has_missing = getattr(model, "missing", None) == getattr(model, "missing", None)
        bare = None
        if self.chance(0.5) and not (library == "xgboost" and has_missing):
            bare = self._bare(library, model)
        train = table.assign(**{TARGET: target})
        title = f"{'bare ' if bare is not None else ''}{' '.join(repr(model).split())}"
        if library == "catboost":
            title += f" {model.get_params()}"
        return Case(title, model, train, self.rows(unseen, table), "pandas", bare)

    def _bare(self, library: str, model: Any) -> Any:
        if library == "lightgbm":
            return model.booster_
        if library == "xgboost":
            return model.get_booster()
        from catboost import CatBoost

        return CatBoost().load_model(blob=model._serialize_model(), format="cbm")

    def targets_case(self) -> Case:
        """Draw a model that answers several targets at once: it must be refused."""
        from sklearn import multioutput

        numbers = [self._number(), self._lattice(), self._integer()]
        table = pd.DataFrame({f"f{i}": make(60) for i, make in enumerate(numbers)})
        first, second = self.target(table), self.target(table)
        target = np.column_stack([first, second])
        regression = self.task == "regression"
        if not regression and self.chance(0.5):  # labels that may stand together
            target = np.column_stack([first == first[0], second == second[0]]).astype(int)
        end = "Regressor" if regression else "Classifier"
        inner = self.common(end.lower())
        wrapped = getattr(multioutput, f"MultiOutput{end}")
        chain = getattr(multioutput, f"{end}Chain")
        every = [cls for _, cls in estimators(end.lower())]
        model = self.one(
            lambda: inner,
            lambda: wrapped(inner),
            lambda: chain(inner),
            lambda: self.build(self.one(*every)),
            lambda: self.build(self.one(*every)),
        )()
        model.fit(table, target)
        if np.asarray(model.predict(table)).ndim < 2:
            raise ValueError("it answers one target")
        train = table.assign(**{TARGET: first})
        title = f"two targets: {' '.join(repr(model).split())}"
        return Case(title, model, train, table, "pandas", several=True)

    def mixed(
        self, table: Any, numeric: Any, others: Any, steps: Any, frame: str, final: Any
    ) -> Any:
        """Return what brings texts and dates to numbers."""
        from sklearn.compose import make_column_transformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline

        texts = [n for n in others if table[n].dtype.kind != "M"]
        is_native = "gbm" in type(final).__module__ or "xgboost" in type(final).__module__
        only_categories = all(isinstance(table[n].dtype, pd.CategoricalDtype) for n in others)
        is_native |= type(final).__name__.startswith("HistGradient")
        if is_native and only_categories and frame == "pandas" and self.chance(0.8):
            return []
        encode: list[Any] = [self.encoder()]
        if table[texts].isna().any().any() and self.chance(0.7):
            missing = None if frame == "polars" or self.chance(0.5) else np.nan
            encode.insert(0, SimpleImputer(strategy="most_frequent", missing_values=missing))
        parts: list[Any] = [(make_pipeline(*encode), texts)] if texts else []
        if numeric:
            parts.append((make_pipeline(*steps) if steps else "passthrough", numeric))
        threshold = self.one(0.0, 0.3, 1.0)
        after = [self.common_transformer()] if self.chance(0.2) else []
        return [make_column_transformer(*parts, sparse_threshold=threshold), *after]

    def text_case(self) -> Case:
        """Draw a model of texts."""
        from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
        from sklearn.pipeline import make_pipeline

        if self.task == "regression":
            self.task = "binary"
        words = np.array(
            [
                "good",
                "bad",
                "ugly",
                "café",
                "Straße",
                "it's",
                "e-mail",
                "x7",
                "the",
                "and",
                "naïve",
                "日本",
                "no",
                "not",
                "never",
            ]
        )

        def make(n: int) -> pd.DataFrame:
            counts = self.draw.integers(1, 9, n)
            return pd.DataFrame({"f0": [" ".join(self.draw.choice(words, c)) for c in counts]})

        table, unseen = make(80), make(40)
        table = table.assign(f0=table.f0 + [f" w{i}" for i in range(len(table))])
        target = np.where(table.f0.str.contains("good"), "yes", "no")
        said = self.some(
            0.3,
            analyzer=("char", "char_wb"),
            ngram_range=((1, 2), (2, 3)),
            binary=(True,),
            lowercase=(False,),
            strip_accents=("unicode", "ascii"),
            token_pattern=("[a-zA-Z]+", r"\S+"),
            max_features=(20,),
            stop_words=("english",),
        )
        cls = self.one(CountVectorizer, TfidfVectorizer)
        if cls is TfidfVectorizer:
            said |= self.some(
                0.3, sublinear_tf=(True,), norm=("l1", None), use_idf=(False,), smooth_idf=(False,)
            )
        final = self.one(*estimators("classifier"))[1]
        model = make_pipeline(
            cls(**said), self.build(final) if self.chance(0.6) else self.common("classifier")
        )
        model.fit(table.f0.tolist(), target)
        odd = ["", " ", "GOOD bad", "İstanbul", "x" * 300, "good\nbad\tugly", "e\u0301", "🙂 good"]
        rows = pd.concat([unseen, pd.DataFrame({"f0": odd})], ignore_index=True)
        model.predict(rows.f0.tolist()[:2])
        return Case(
            " ".join(repr(model).split()), model, table.assign(**{TARGET: target}), rows, "texts"
        )

    def rows(self, unseen: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
        """Return unseen rows, and rows of zeros, ones, huge values, nulls and unknown levels."""
        odd = []
        for name in unseen:
            column = unseen[name]
            if column.dtype.kind == "f":
                values: list[Any] = [0.0, -0.0, 1.0, 1e6, -1e6, 1e-300, 1e30]
                values += [np.nan] if table[name].isna().any() else []
            elif column.dtype.kind == "i":
                values = [0, 1, -1, 10**6, -(10**6)]
            elif isinstance(column.dtype, pd.CategoricalDtype):
                values = ["unseen", "red"]
            elif column.dtype.kind in "OU":
                values = ["zzz", "", "nan"] + ([None] if table[name].isna().any() else [])
            else:
                continue
            for value in values:
                row = unseen.iloc[[int(self.draw.integers(len(unseen)))]].copy()
                row[name] = pd.Series([value], index=row.index).astype(column.dtype)
                odd.append(row)
        numeric = [n for n in unseen if unseen[n].dtype.kind in "fi"]
        for value in (0, 1):
            row = unseen.iloc[[0]].copy()
            row[numeric] = (
                row[numeric].assign(**dict.fromkeys(numeric, value)).astype(unseen[numeric].dtypes)
            )
            odd.append(row)
        nullable = [n for n in numeric if table[n].isna().any()]
        if nullable:
            odd.append(unseen.iloc[[0]].assign(**dict.fromkeys(nullable, np.nan)))
        found = pd.concat([unseen, *odd, table.iloc[:10]], ignore_index=True)
        return found.astype(unseen.dtypes)
