"""
What calibrated models and conformal sets cost, and whether sets hold the truth as stated.

    .venv/bin/python bench/uncertainty.py [--rows 20000] [--trees 100]

Prints CPU microseconds for a row alone and among 64: of a forest, and of the same forest with each
kind of map. Then coverage and mean size of sets on fresh rows. MAPIE_PYTHON names the Python of an
environment with MAPIE, whose figures on the same rows stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from sklearn.ensemble import RandomForestClassifier

import clewline as cl
from clewline.evaluation.conformal import (
    Method,
    conformal_quantile,
    label_scores,
    label_sets,
    true_scores,
)
from clewline.model.register import convert_model
from clewline.model.runtime.outputs import Outputs, take_rows
from clewline.model_families import family_named
from clewline.signature.check import Checker

KINDS = ("isotonic", "sigmoid", "temperature", "beta")
REPEATS, CALLS = 5, 100
COVERAGES = (0.8, 0.9, 0.95, 0.99)

MAPIE = """
import json, sys
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from mapie.classification import SplitConformalClassifier

class Answers(ClassifierMixin, BaseEstimator):
    def __init__(self): pass
    def fit(self, X, y): return self
    def __sklearn_is_fitted__(self): return True
    def predict_proba(self, X): return np.asarray(X)
    def predict(self, X): return self.classes_[np.asarray(X).argmax(axis=1)]

given = json.load(sys.stdin)
shares, truth, first = np.array(given["shares"]), np.array(given["truth"]), given["first"]
model = Answers()
model.classes_, model.n_features_in_ = np.arange(shares.shape[1]), shares.shape[1]
found = {}
for coverage in given["coverages"]:
    conformal = SplitConformalClassifier(
        model, confidence_level=coverage, conformity_score="lac", prefit=True
    )
    conformal.conformalize(shares[:first], truth[:first])
    sets = conformal.predict_set(shares[first:])[1][:, :, 0]
    rest = truth[first:]
    found[coverage] = [float(sets[np.arange(len(rest)), rest].mean()), float(sets.sum(1).mean())]
print(json.dumps(found))
"""


def cpu_us(call: Callable[[], Any], calls: int = CALLS) -> float:
    """Return the CPU microseconds of a call, the best of several rounds."""
    call()
    best = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(calls):
            call()
        best = min(best, (time.process_time() - start) / calls)
    return best * 1e6


def made(rows: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Return a table of ten numbers and three labels."""
    random = np.random.default_rng(0)
    numbers = random.normal(size=(rows, 10))
    scores = numbers @ random.normal(size=(10, 3)) + 1.5 * random.gumbel(size=(rows, 3))
    truth = scores.argmax(axis=1)
    names = [f"x{place}" for place in range(10)]
    table = pl.DataFrame(numbers, schema=names)
    return table.with_columns(pl.Series("y", np.array(["a", "b", "c"])[truth])), truth


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--trees", type=int, default=100)
    given = options.parse_args()
    table, truth = made(given.rows)
    quarter = given.rows // 4
    parts = [table[at * quarter : (at + 1) * quarter] for at in range(4)]
    train, hold, test = parts[0], parts[1], pl.concat(parts[2:])
    forest = RandomForestClassifier(given.trees, random_state=0, n_jobs=1)
    forest.fit(train.drop("y"), train["y"].to_list())

    print(f"{given.trees} trees, {given.rows:,} rows; CPU microseconds")
    print(f"{'model':<14}{'1 row':>9}{'64 rows':>10}   form")
    asked: Outputs | None = None
    for kind in (None, *KINDS):
        model = forest if kind is None else cl.calibrate(forest, hold, target="y", kind=kind)  # type: ignore[arg-type]
        contents = convert_model(model, train=train, test=test.head(500), target="y")
        predictor = family_named(contents.compiled.runtime).load(
            contents.compiled.files, contents.signature
        )
        columns = Checker(contents.signature).table(test.drop("y")).columns
        one, many = take_rows(columns, slice(0, 1)), take_rows(columns, slice(0, 64))
        alone = cpu_us(lambda: predictor.predict(one))  # noqa: B023
        together = cpu_us(lambda: predictor.predict(many), CALLS // 5)  # noqa: B023
        form = contents.compiled.equality.form
        print(f"{kind or 'forest':<14}{alone:>9.1f}{together:>10.1f}   {form}")
        if kind is None:
            asked = predictor.predict(columns)
    assert asked is not None
    assert asked.probabilities is not None

    shares, wanted = asked.probabilities, truth[2 * quarter : 4 * quarter]
    first, uniforms = len(shares) // 2, np.random.default_rng(1).random(len(shares))
    print(f"\nsets: {first:,} scores, {len(shares) - first:,} fresh rows")
    theirs = mapie(shares, wanted, first)
    print(f"{'coverage':>9}{'lac':>18}{'aps':>18}{'MAPIE, lac':>18}")
    for coverage in COVERAGES:
        cells = []
        methods: tuple[Method, ...] = ("lac", "aps")
        for method in methods:
            scores = label_scores(method, shares[:first], uniforms[:first])
            threshold = conformal_quantile(true_scores(scores, wanted[:first]), coverage)
            inside = label_sets(method, shares[first:], threshold, uniforms[first:])
            rest = wanted[first:]
            cells.append((inside[np.arange(len(rest)), rest].mean(), inside.sum(axis=1).mean()))
        cells.append(theirs[str(coverage)] if theirs else (float("nan"), float("nan")))
        print(f"{coverage:>9}" + "".join(f"{found:>10.4f}{size:>8.3f}" for found, size in cells))


def mapie(shares: np.ndarray, truth: np.ndarray, first: int) -> dict[str, list[float]] | None:
    """Return MAPIE's coverage and mean size; None if there is no such environment."""
    python = os.environ.get("MAPIE_PYTHON")
    if python is None:
        return None
    given = {"shares": shares.tolist(), "truth": truth.tolist(), "first": first}
    text = json.dumps({**given, "coverages": COVERAGES})
    done = subprocess.run(
        [python, "-c", MAPIE], input=text, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1])
        return None
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
