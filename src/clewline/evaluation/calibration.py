"""
Calibration: of the rows that get a probability of 0.8, does the label hold for 80 %?

Source:
    Reliability diagrams: Murphy, Winkler, Reliability of subjective probability forecasts of
    precipitation and temperature (Applied Statistics 26, 1977). Equal-mass bins: Nixon et al.,
    Measuring calibration in deep learning (CVPR Workshops 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.metrics import LEVEL, Floats, Integers, Interval
from clewline.signature.infer import Label

BINS = 15
LEAST_BIN_ROWS = 10
"""Bins are fewer where they would hold fewer rows."""
RESAMPLES = 1000
CLIPPED = 1e-9
"""Probabilities are at least this far from 0 and 1 before their log-odds are taken."""
_NEWTON_STEPS, _PENALTY = 100, 1e-9


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Rows with similar probabilities, and how often the label held for them."""

    rows: int
    low: float  # the smallest probability in the bin
    high: float  # the largest one
    probability: float  # mean
    share: Interval  # of the rows for which the label holds; Wilson's interval


class BrierParts(msgspec.Struct, frozen=True):
    """
    The Brier score as a sum: `reliability - resolution + uncertainty + within_bins`, exactly.

    Murphy's three parts alone add up only if all probabilities of a bin are the same; what the
    spread inside of bins adds is `within_bins`.

    Source:
        Murphy, A new vector partition of the probability score (Journal of Applied Meteorology
        12, 1973). Stephenson, Coelho, Jolliffe, Two extra components in the Brier score
        decomposition (Weather and Forecasting 23, 2008).
    """

    score: float  # in [0, 1], 0 is best
    reliability: float  # 0 is best: squared distance of probabilities and shares
    resolution: float  # larger is better: how far the shares of the bins are from the mean share
    uncertainty: float  # of the label itself
    within_bins: float


class ReliabilityCurve(msgspec.Struct, frozen=True, kw_only=True):
    """The reliability diagram of one label, and its calibration error."""

    label: Label | None = None  # None: the most probable label of each row ("top label")
    bins: tuple[ReliabilityBin, ...]  # from low to high probabilities
    ece: float  # expected calibration error, in [0, 1]: mean of |probability - share| over rows
    ece_by_chance: float  # 95 of 100 perfectly calibrated models have a smaller `ece` on such rows
    ece_debiased: Interval  # without what chance alone adds to `ece`
    rms_debiased: float  # root mean square of the same distances, without what chance adds
    brier: BrierParts


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How far probabilities can be taken at their word."""

    rows: int
    curves: tuple[ReliabilityCurve, ...]
    """Binary: of the positive label. Several labels: of the top label, then of each label."""
    classwise_ece: float | None = None  # several labels: mean of the labels' `ece_debiased`
    slope: Interval | None = None
    """Of the truth's log-odds over the model's; 1 is best, below 1 the model is too sure. Binary,
    with both labels in the test rows."""
    intercept: Interval | None = None  # 0 is best, above 0 the probabilities are too low


@dataclass(frozen=True, slots=True)
class BinnedRows:
    """Sums over the rows of each bin, shape (bins,); no bin is empty."""

    rows: Floats
    probability: Floats  # mean
    share: Floats  # of the rows for which the label holds

    @property
    def weight(self) -> Floats:
        """Share of all rows."""
        return np.asarray(self.rows / self.rows.sum())


def measure_calibration(
    truth: Integers, probabilities: Floats, labels: Sequence[Label], *, seed: int = 0
) -> Calibration:
    """
    Compare probabilities with how often the labels hold.

    Args:
        truth: Label indices, shape (n,), n > 0.
        probabilities: Shape (n, labels), each in [0, 1].
        labels: In the order of the columns; with two of them, the second is the positive one.
        seed: Of the bootstrap.
    """
    rows, width = probabilities.shape
    if width == 2:
        hit = truth == 1
        curve = reliability_curve(hit, probabilities[:, 1], label=labels[1], seed=seed)
        fitted = calibration_slope(hit, probabilities[:, 1])
        slope, intercept = (None, None) if fitted is None else fitted
        return Calibration(rows=rows, curves=(curve,), slope=slope, intercept=intercept)
    chosen = probabilities.argmax(axis=1)
    top = reliability_curve(chosen == truth, probabilities.max(axis=1), seed=seed)
    each = [
        reliability_curve(truth == place, probabilities[:, place], label=label, seed=seed)
        for place, label in enumerate(labels)
    ]
    mean = float(np.mean([curve.ece_debiased.value for curve in each]))
    return Calibration(rows=rows, curves=(top, *each), classwise_ece=mean)


def reliability_curve(
    hit: NDArray[np.bool_],
    probability: Floats,
    *,
    label: Label | None = None,
    bins: int = BINS,
    seed: int = 0,
) -> ReliabilityCurve:
    """
    Measure the calibration of one label.

    Args:
        hit: Whether the label holds, shape (n,), n > 0.
        probability: What the model says of it, shape (n,), in [0, 1].
        label: The label; None for the most probable one of each row.
        bins: Maximum number of bins; each has at least `LEAST_BIN_ROWS` rows, and equal
            probabilities are in one bin.
        seed: Of the bootstrap.
    """
    place = bin_places(probability, bins)
    binned = _bin_rows(place, hit, probability)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(binned.rows)))
    lows = np.minimum.reduceat(probability[order], starts)
    highs = np.maximum.reduceat(probability[order], starts)
    shown = tuple(
        ReliabilityBin(int(n), low, high, mean, wilson_interval(share * n, n))
        for n, low, high, mean, share in zip(
            binned.rows.tolist(),
            lows.tolist(),
            highs.tolist(),
            binned.probability.tolist(),
            binned.share.tolist(),
            strict=True,
        )
    )
    by_chance = _error_by_chance(binned, seed)
    return ReliabilityCurve(
        label=label,
        bins=shown,
        ece=calibration_error(binned),
        ece_by_chance=by_chance,
        ece_debiased=_debiased_interval(binned, by_chance, seed),
        rms_debiased=debiased_rms_error(binned),
        brier=_brier_parts(binned, place, hit, probability),
    )


def bin_places(probability: Floats, bins: int = BINS) -> NDArray[np.intp]:
    """
    Sort rows into bins of about equal size, from low to high; no bin is empty.

    Returns:
        The bin of each row, shape (n,), numbered from 0.
    """
    count = max(1, min(bins, len(probability) // LEAST_BIN_ROWS))
    edges = np.quantile(probability, np.linspace(0, 1, count + 1)[1:-1])
    places = np.searchsorted(edges, probability)
    return np.unique(places, return_inverse=True)[1].reshape(-1)


def calibration_error(binned: BinnedRows) -> float:
    """
    Return the expected calibration error: the mean of |probability - share|, in [0, 1].

    Source:
        Naeini, Cooper, Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning
        (AAAI 2015).
    """
    return float((binned.weight * np.abs(binned.probability - binned.share)).sum())


def debiased_calibration_error(binned: BinnedRows) -> float:
    """
    Return the expected calibration error without what chance alone adds to it, 0 or more.

    The share of a bin of n rows varies by chance. If the distance of its mean is d, the observed
    distance is the absolute value of a normal variable around d, whose mean is larger than d. The
    excess at the observed distance is subtracted; of a perfect model, that is about half of what
    chance adds.

    Source:
        Kumar, Liang, Ma, Verified uncertainty calibration (NeurIPS 2019). Roelofs, Cain, Shlens,
        Mozer, Mitigating bias in calibration error estimation (AISTATS 2022).
    """
    return max(0.0, calibration_error(binned) - _chance_error(binned))


def debiased_rms_error(binned: BinnedRows) -> float:
    """
    Return the root mean square calibration error without what chance adds to its square.

    Source:
        Kumar, Liang, Ma (2019), section 4: the variance share·(1 - share)/(n - 1) of each bin is
        subtracted from its squared distance.
    """
    chance = binned.share * (1 - binned.share) / np.maximum(binned.rows - 1, 1)
    squares = (binned.probability - binned.share) ** 2 - chance
    return float(np.sqrt(max(0.0, (binned.weight * squares).sum())))


def calibration_slope(
    hit: NDArray[np.bool_], probability: Floats
) -> tuple[Interval, Interval] | None:
    """
    Fit a line from the log-odds of the model to those of the truth.

    Returns:
        Slope and intercept with 95 % Wald intervals; None if the truth holds one label alone, the
        probability never differs, or it separates the labels, so that no line is best.

    Source:
        Cox, Two further applications of a model for binary regression (Biometrika 45, 1958).
    """
    if hit.all() or not hit.any() or np.ptp(probability) == 0:
        return None
    clipped = np.clip(probability, CLIPPED, 1 - CLIPPED)
    log_odds = np.log(clipped / (1 - clipped))[:, None]
    score = log_odds[:, 0]
    if score[hit].min() >= score[~hit].max() or score[hit].max() <= score[~hit].min():
        return None
    fit = fit_logistic(log_odds, hit.astype(np.float64))
    design = np.column_stack([log_odds, np.ones(len(hit))])
    share = 1 / (1 + np.exp(-np.clip(design @ fit, -700, 700)))
    information = (design * (share * (1 - share))[:, None]).T @ design
    width = _quantile_of_normal() * np.sqrt(np.diag(np.linalg.inv(information)))
    slope, intercept = (
        Interval(float(value), float(value - each), float(value + each))
        for value, each in zip(fit, width, strict=True)
    )
    return slope, intercept


def fit_logistic(features: Floats, targets: Floats) -> Floats:
    """
    Fit a logistic regression by Newton's method with step halving.

    A penalty of 1e-9 for each row keeps the result unique and finite where the features
    determine each other or separate the targets.

    Args:
        features: Shape (n, k). A column that never differs gets the coefficient 0.
        targets: Shape (n,), in [0, 1].

    Returns:
        The k coefficients, then the intercept.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    constant = scale <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    scale = np.where(constant, 1.0, scale)
    scaled = np.where(constant, 0.0, (features - mean) / scale)
    design = np.column_stack([scaled, np.ones(len(targets))])
    penalty = np.append(np.full(scaled.shape[1], _PENALTY), 0.0)

    def loss(fit: Floats) -> float:
        score = design @ fit
        losses = np.logaddexp(0.0, score) - targets * score
        return float(losses.mean() + (penalty * fit**2).sum() / 2)

    fit = np.zeros(design.shape[1])
    now = loss(fit)
    for _ in range(_NEWTON_STEPS):
        share = 1 / (1 + np.exp(-np.clip(design @ fit, -700, 700)))
        slope = design.T @ (targets - share) / len(targets) - penalty * fit
        if np.abs(slope).max() < 1e-13:
            break
        curvature = (design * (share * (1 - share))[:, None]).T @ design / len(targets)
        step = np.linalg.solve(curvature + np.diag(penalty + 1e-15), slope)
        while (found := loss(fit + step)) > now and np.abs(step).max() > 1e-12:
            step = step / 2
        if found > now:
            break  # rounding allows no better one
        fit, now = fit + step, found
    coefficients = fit[:-1] / scale
    return np.append(coefficients, fit[-1] - (coefficients * mean).sum())


def wilson_interval(hits: float, rows: float) -> Interval:
    """
    Return a share with its 95 % interval.

    Args:
        hits: Rows that count, 0 to `rows`.
        rows: All rows, more than 0.

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference (Journal of
        the American Statistical Association 22, 1927).

    >>> print(wilson_interval(8, 10))
    0.8 [0.4902, 0.9433]
    """
    z, share = _quantile_of_normal(), hits / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    low = 0.0 if hits == 0 else float(middle - half)
    return Interval(float(share), low, 1.0 if hits == rows else float(middle + half))


def _quantile_of_normal() -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + LEVEL) / 2))


def _bin_rows(place: NDArray[np.intp], hit: NDArray[np.bool_], probability: Floats) -> BinnedRows:
    rows = np.bincount(place).astype(np.float64)
    share = np.bincount(place, weights=hit) / rows
    return BinnedRows(rows, np.bincount(place, weights=probability) / rows, share)


def _chance_error(binned: BinnedRows) -> float:
    """Return how much larger the absolute distances are than those of the means, on average."""
    from scipy.special import ndtr

    spread = np.sqrt(binned.share * (1 - binned.share) / binned.rows)
    distance = np.abs(binned.probability - binned.share)
    sure = spread == 0
    ratio = np.divide(distance, spread, out=np.zeros_like(distance), where=~sure)
    folded = spread * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
    excess = folded + distance * (1 - 2 * ndtr(-ratio)) - distance
    return float((binned.weight * np.where(sure, 0.0, excess)).sum())


def _error_by_chance(binned: BinnedRows, seed: int) -> float:
    """
    Return the 95th percentile of the error of a perfectly calibrated model on such rows.

    Source:
        Bröcker, Smith, Increasing the reliability of reliability diagrams (Weather and Forecasting
        22, 2007): consistency resampling.
    """
    random = np.random.default_rng(seed)
    rows = binned.rows.astype(np.int64)
    hits = random.binomial(rows, np.clip(binned.probability, 0, 1), (RESAMPLES, len(rows)))
    errors = np.abs(binned.probability - hits / rows) @ binned.weight
    return float(np.quantile(errors, LEVEL))


def _debiased_interval(binned: BinnedRows, by_chance: float, seed: int) -> Interval:
    """
    Return the debiased error with a pivotal bootstrap interval.

    Resamples vary around `ece`, which is the true error of the population that they are drawn
    from. So the distance of their debiased errors from `ece` is that of ours from the truth. The
    interval begins at 0 if chance explains the error.
    """
    value, centre = debiased_calibration_error(binned), calibration_error(binned)
    random = np.random.default_rng(seed)
    total = int(binned.rows.sum())
    counts = random.multinomial(total, binned.weight / binned.weight.sum(), RESAMPLES)
    hits = random.binomial(counts, binned.share)
    apart = []
    for rows, found in zip(counts.astype(np.float64), hits.astype(np.float64), strict=True):
        some = rows > 0
        share = found[some] / rows[some]
        drawn = BinnedRows(rows[some], binned.probability[some], share)
        apart.append(calibration_error(drawn) - _chance_error(drawn) - centre)
    tails = np.quantile(apart, [(1 + LEVEL) / 2, (1 - LEVEL) / 2])
    low, high = (min(1.0, max(0.0, value - float(tail))) for tail in tails)
    if centre <= by_chance:
        low = 0.0
    return Interval(value, min(low, value), max(high, value))


def _brier_parts(
    binned: BinnedRows, place: NDArray[np.intp], hit: NDArray[np.bool_], probability: Floats
) -> BrierParts:
    mean = float(hit.mean())
    reliability = (binned.weight * (binned.probability - binned.share) ** 2).sum()
    resolution = (binned.weight * (binned.share - mean) ** 2).sum()
    inside = probability - binned.probability[place]
    within = (inside**2).mean() - 2 * (inside * (hit - binned.share[place])).mean()
    return BrierParts(
        score=float(((probability - hit) ** 2).mean()),
        reliability=float(reliability),
        resolution=float(resolution),
        uncertainty=mean * (1 - mean),
        within_bins=float(within),
    )
