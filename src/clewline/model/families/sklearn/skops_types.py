"""
The types that a skops file may hold for us to load it: one list, ours, not the file's.

skops itself trusts public estimators, NumPy arrays and plain Python values. This
list adds the compiled and private types that fitted scikit-learn estimators are
made of, and the functions of scikit-learn's that searches and selectors name.
Each type only holds data, each function only computes. `skops_audit.py` decides where a
function may stand and which methods a file may name. Other families add the types of their
estimators, whose trees stand in the file as bytes that their own readers check.
"""

from __future__ import annotations

import sys
from copy import copy
from functools import cache
from typing import Any
from zipfile import BadZipFile

import numpy as np

from clewline.entry_points import install_command
from clewline.errors import IntegrityError, NotStorable, NotSupported
from clewline.model.families.sklearn.skops_audit import unusual_parts
from clewline.model_families import families


def _names(listed: str) -> tuple[str, ...]:
    """Read names from lines of `module: name name …`; an indented line goes on."""
    lines = listed.strip().replace("\n    ", " ").splitlines()
    parts = (line.split(": ") for line in lines)
    return tuple(f"{module}.{name}" for module, names in parts for name in names.split())


FUNCTIONS = _names("""
scipy._lib.array_api_compat.numpy._aliases: asarray
sklearn.feature_selection._mutual_info: mutual_info_classif mutual_info_regression
sklearn.feature_selection._univariate_selection: chi2 f_classif f_oneway f_regression
    r_regression
sklearn.metrics._classification: accuracy_score balanced_accuracy_score brier_score_loss
    d2_log_loss_score f1_score jaccard_score log_loss matthews_corrcoef precision_score
    recall_score
sklearn.metrics._ranking: average_precision_score roc_auc_score top_k_accuracy_score
sklearn.metrics._regression: d2_absolute_error_score explained_variance_score max_error
    mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance
    mean_poisson_deviance mean_squared_error mean_squared_log_error median_absolute_error
    r2_score root_mean_squared_error root_mean_squared_log_error
sklearn.utils.validation: check_array
""")
"""Functions that may stand where a function is expected, and nowhere else."""

OWN_TYPES = (
    *FUNCTIONS,
    *_names("""
builtins: object
collections: OrderedDict defaultdict
functools: partial
numpy: dtype
numpy.random.mtrand: RandomState
scipy.interpolate._bsplines: BSpline _BSpline
scipy.sparse._csc: csc_array csc_matrix
scipy.sparse._csr: csr_array csr_matrix
sklearn._loss.link: HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit
sklearn._loss.loss: AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss
    HalfMultinomialLoss HalfPoissonLoss HalfSquaredError HalfTweedieLoss
    HalfTweedieLossIdentity HuberLoss PinballLoss
sklearn.calibration: _CalibratedClassifier _SigmoidCalibration _TemperatureScaling
sklearn.compose._column_transformer: _RemainderColsList make_column_selector
sklearn.ensemble._hist_gradient_boosting.binning: _BinMapper
sklearn.ensemble._hist_gradient_boosting.predictor: TreePredictor
sklearn.gaussian_process._gpc: _BinaryGaussianProcessClassifierLaplace
sklearn.gaussian_process.kernels: CompoundKernel ConstantKernel DotProduct ExpSineSquared
    Exponentiation Matern PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel
sklearn.linear_model._sgd_fast: EpsilonInsensitive Hinge Log ModifiedHuber
    SquaredEpsilonInsensitive SquaredHinge
sklearn.metrics._dist_metrics: BrayCurtisDistance64 CanberraDistance64 ChebyshevDistance64
    DiceDistance64 DistanceMetric64 EuclideanDistance64 HammingDistance64 HaversineDistance64
    JaccardDistance64 MahalanobisDistance64 ManhattanDistance64 MinkowskiDistance64
    RogersTanimotoDistance64 RussellRaoDistance64 SEuclideanDistance64 SokalSneathDistance64
sklearn.metrics._scorer: _CurveScorer _PassthroughScorer _Scorer
sklearn.model_selection._classification_threshold: _CurveScorer
sklearn.model_selection._split: GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut
    LeaveOneOut LeavePGroupsOut LeavePOut PredefinedSplit RepeatedKFold
    RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold
    StratifiedShuffleSplit TimeSeriesSplit _CVIterableWrapper
sklearn.neighbors._ball_tree: BallTree BallTree64
sklearn.neighbors._kd_tree: KDTree KDTree64
sklearn.neural_network._stochastic_optimizers: AdamOptimizer SGDOptimizer
sklearn.preprocessing._label: LabelBinarizer
sklearn.tree._tree: Tree
sklearn.utils._bunch: Bunch
sklearn.utils._metadata_requests: MetadataRequest MethodMetadataRequest
"""),
)
"""Compiled and private types that estimators, searches and kernels are made of."""


UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OSError, BadZipFile)


@cache
def trusted_types() -> frozenset[str]:
    """Return every type and function that a skops file may hold."""
    others = (kind for each in families() for kind in each.storable_types)
    return frozenset((*OWN_TYPES, *others))


def untrusted_parts(data: bytes) -> list[str]:
    """Name what in a skops file is not trusted; an empty list means that it may load."""
    from skops.io import get_untrusted_types

    if types := set(get_untrusted_types(data=data)) - trusted_types():
        return sorted(types)
    return unusual_parts(data, FUNCTIONS)


def with_plain_parts(value: Any) -> Any:
    """
    Return an estimator with lists for pandas indexes, and with 0 and 1 for False and True as keys.

    `ColumnTransformer` keeps `X.columns` as it was given, and LightGBM the labels of a bool
    target as keys; skops writes neither rightly. Python finds True under the key 1. What holds
    none of them is returned as it is.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.Index):
        return value.tolist()
    if type(value) in (list, tuple):
        parts = [with_plain_parts(part) for part in value]
        changed = any(new is not old for new, old in zip(parts, value, strict=True))
        return type(value)(parts) if changed else value
    if type(value) is dict:
        plain = {
            int(key) if isinstance(key, bool | np.bool_) else key: with_plain_parts(part)
            for key, part in value.items()
        }
        changed = any(
            new is not old
            for new, old in zip((*plain, *plain.values()), (*value, *value.values()), strict=True)
        )
        return plain if changed else value
    if hasattr(value, "get_params") and not isinstance(value, type):
        state = with_plain_parts(vars(value))
        if state is not vars(value):
            value = copy(value)
            vars(value).update(state)
    return value


def dump_skops(value: Any) -> bytes:
    """
    Write an estimator as a skops file.

    Raises:
        NotStorable: skops cannot write it, or it holds types that would not be loaded.
    """
    from skops.io import dumps

    from clewline.flow.values.framing import type_name  # a server only reads
    from clewline.flow.values.storage import WAYS_OUT

    name = type_name(type(value))
    try:
        data: bytes = dumps(with_plain_parts(value))
        refused = untrusted_parts(data)
    except Exception as error:  # skops passes on any error of an estimator's attributes
        raise NotStorable(f"The {name} cannot be stored: {error}.", WAYS_OUT) from error
    if refused:
        raise NotStorable(
            f"The {name} holds types that are not trusted to be loaded: {', '.join(refused)}.",
            "Store an estimator that uses only its library's own types, or its parameters as a "
            "dict; or keep it out of the store with @cl.step(store_output=False).",
        )
    return data


def load_skops(data: bytes) -> object:
    """
    Load an estimator from the bytes of a skops file.

    Raises:
        IntegrityError: The file holds what is not on our list, or is no skops file.
        NotSupported: A library that the file needs is not installed.
    """
    from skops.io import loads
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        refused = untrusted_parts(data)
        if not refused:
            return loads(data, trusted=list(trusted_types()))
    except ModuleNotFoundError as error:
        raise NotSupported(
            f"This model needs {error.name}, which is not installed.",
            install_command(str(error.name)),
        ) from error
    except (*UNREADABLE, UntrustedTypesFoundException) as error:
        raise IntegrityError(
            f"The bytes are not a skops file that can be read: {error}.",
            "Register the model again from the run that made it.",
        ) from error
    raise IntegrityError(
        f"The skops file holds what is not trusted: {', '.join(refused)}.",
        "Only the libraries' own estimators are loaded; register the model in another form.",
    )
