"""Where a regression is wrong, and by how much: over the range of its answers."""

from __future__ import annotations

import msgspec
import numpy as np

from clewline.evaluation.metrics import Floats

BINS = 10
SHOWN_ROWS = 300


class ErrorBin(msgspec.Struct, frozen=True, kw_only=True):
    """The errors, answer less truth, of rows with about the same answer."""

    low: float  # of the answers in the bin
    high: float
    rows: int
    mean: float
    p10: float  # tenth of the errors below it
    p90: float


class Residuals(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of a regression on the test rows, in the unit of the target."""

    bins: list[ErrorBin]  # of about equal numbers of rows, by ascending answer
    sample: list[tuple[float, float]]  # answer and truth of up to 300 rows


def measure_residuals(truth: Floats, answers: Floats, *, seed: int = 0) -> Residuals:
    """
    Measure errors by the size of the answer.

    Args:
        truth: Shape (n,), n > 0, finite.
        answers: Shape (n,), finite.
        seed: Seed of the sample.
    """
    inner = np.quantile(answers, np.linspace(0, 1, BINS + 1)[1:-1])
    places = np.searchsorted(np.unique(inner), answers, side="left")
    bins = []
    for place in np.unique(places):
        here = places == place
        errors = answers[here] - truth[here]
        p10, p90 = np.quantile(errors, [0.1, 0.9]).tolist()
        bins.append(
            ErrorBin(
                low=float(answers[here].min()),
                high=float(answers[here].max()),
                rows=int(here.sum()),
                mean=float(errors.mean()),
                p10=p10,
                p90=p90,
            )
        )
    count = min(SHOWN_ROWS, len(truth))
    drawn = np.sort(np.random.default_rng(seed).choice(len(truth), count, replace=False))
    pairs = zip(answers[drawn].tolist(), truth[drawn].tolist(), strict=True)
    return Residuals(bins=bins, sample=list(pairs))
