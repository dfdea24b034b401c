"""
The types that a skops file may hold for us to load it: one list, ours, not the file's.

skops itself trusts public estimators, NumPy arrays and plain Python values. This
list adds the compiled and private types that fitted scikit-learn estimators are
made of. Each one only holds data: none runs code given in the file when loaded.
"""

from __future__ import annotations

from zipfile import BadZipFile

from fairlead.errors import IntegrityError

TRUSTED: tuple[str, ...] = (
    "collections.OrderedDict",
    "collections.defaultdict",
    "numpy.dtype",
    "numpy.random.mtrand.RandomState",
    "sklearn._loss.link.HalfLogitLink",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogLink",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.AbsoluteError",
    "sklearn._loss.loss.ExponentialLoss",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfGammaLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfPoissonLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn._loss.loss.HuberLoss",
    "sklearn._loss.loss.PinballLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.linear_model._sgd_fast.EpsilonInsensitive",
    "sklearn.linear_model._sgd_fast.Hinge",
    "sklearn.linear_model._sgd_fast.Log",
    "sklearn.linear_model._sgd_fast.ModifiedHuber",
    "sklearn.linear_model._sgd_fast.SquaredEpsilonInsensitive",
    "sklearn.linear_model._sgd_fast.SquaredHinge",
    "sklearn.metrics._dist_metrics.DistanceMetric64",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._ball_tree.BallTree64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._kd_tree.KDTree64",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.preprocessing._label.LabelBinarizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OSError, BadZipFile)


def untrusted(data: bytes) -> list[str]:
    """Name the types in a skops file that we do not trust; an empty list means that it may load."""
    from skops.io import get_untrusted_types

    return sorted(set(get_untrusted_types(data=data)) - set(TRUSTED))


def load_skops(data: bytes) -> object:
    """
    Load an estimator from the bytes of a skops file.

    Raises:
        IntegrityError: The file holds a type that is not on our list, or is no skops file.
    """
    from skops.io import loads
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        refused = untrusted(data)
        if not refused:
            return loads(data, trusted=list(TRUSTED))
    except (*_UNREADABLE, UntrustedTypesFoundException) as error:
        raise IntegrityError(
            f"The bytes are not a skops file that we can read: {error}.",
            "Register the model again from the run that made it.",
        ) from error
    raise IntegrityError(
        f"The skops file holds types that we do not trust: {', '.join(refused)}.",
        "Only scikit-learn's own estimators are loaded; register the model in another form.",
    )
