"""
Lower bounds of a probability that hold at every moment at once.

Whoever looks at the samples again and again, and stops when the bound is high enough, is still
wrong in at most a stated share of the cases. A bound for a fixed number of samples does not
allow that.

Source:
    Betting against a value, and stopping at any time: Waudby-Smith, Ramdas, Estimating means of
    bounded random variables by betting (JRSS B 2024). The mixture over a beta distribution:
    Robbins, Statistical methods related to the law of the iterated logarithm (1970); Howard,
    Ramdas, McAuliffe, Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences
    (Annals of Statistics 2021).
"""

from __future__ import annotations

import math

FAILURES = 1.5
"""Weight of the mixture: of a few hundred samples, this many failures are expected."""
DIGITS = 6
"""A bound is rounded down to so many decimals, so that it is the same on every machine."""


def log_wealth(successes: int, samples: int, probability: float, expected: float) -> float:
    """
    Return the logarithm of what a bet against `probability` has become, beginning with 1.

    If `probability` is the true one, it ever exceeds log(1 / δ) in at most a share δ of cases.

    Args:
        successes: Of the samples.
        samples: So far.
        probability: In (0, 1); the value that is bet against.
        expected: In (0, 1); the value that the bet is quickest for. Fixed beforehand.
    """
    a, b = FAILURES * expected / (1 - expected), FAILURES
    failures = samples - successes
    mixture = _log_beta(a + successes, b + failures) - _log_beta(a, b)
    return mixture - successes * math.log(probability) - failures * math.log1p(-probability)


def lower_bound(successes: int, samples: int, delta: float, expected: float) -> float:
    """
    Return the lowest probability that samples have not refuted.

    Over all moments at once, it is above the true probability in at most a share δ of cases.

    Args:
        successes: Of the samples.
        samples: So far.
        delta: In (0, 1).
        expected: As of `log_wealth`.

    >>> lower_bound(100, 100, 0.05, 0.975) > 0.95 > lower_bound(90, 100, 0.05, 0.975)
    True
    """
    if not successes:
        return 0.0
    needed = -math.log(delta)
    low, high = 0.0, successes / samples if successes < samples else 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if log_wealth(successes, samples, middle, expected) >= needed:
            low = middle
        else:
            high = middle
    scale = 10.0**DIGITS
    return math.floor(low * scale) / scale


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
