"""Evaluation of a million rows by 20 fields, beside scikit-learn and fairlearn."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from shared.keep import keep
from shared.peers import PEERS, make_environment

from clewline.evaluation.evaluate import evaluate

NUMBERS, LEVELS = 12, 8


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--alone", action="store_true", help="leave fairlearn out")
    given = arguments.parse_args()
    table, scores = rows(given.rows)
    model = StatedScores(scores)
    options: dict[str, Any] = {
        "slices": ["level_0", "number_0 > 1"],
        "protected": ["level_1", "level_7"],
        "costs": {1: {0: 5}, 0: {1: 1}},
    }
    before = peak_mib()
    wall, cpu, report = timed(lambda: evaluate(model, table, target="y", **options))
    found: dict[str, Any] = {
        "rows": given.rows,
        "fields": NUMBERS + LEVELS,
        "asked": {name: str(option) for name, option in options.items()},
        "clewline": {
            "wall_s": round(wall, 2),
            "cpu_s": round(cpu, 2),
            "peak_mib": round(peak_mib()),
            "peak_before_mib": round(before),
            "weak_slices": [each.condition for each in report.slices.weak.slices],
            "combinations": report.slices.weak.tried,
        },
    }
    wall, cpu, _ = timed(lambda: evaluate(model, table, target="y", find_slices=False))
    found["clewline without slices, fairness, value"] = {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
    }
    if not given.alone:
        found["scikit-learn and fairlearn, point values only"] = beside(table, scores)
    keep("evaluation", found, versions=("numpy", "polars", "scikit-learn", "scipy"))
    print(json.dumps(found, indent=2))


class StatedScores:
    """A binary classifier whose probabilities are given, so that only the evaluation is timed."""

    classes_ = np.array([0, 1])

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def predict(self, features: Any) -> np.ndarray:
        return (self.scores > 0.5).astype(int)

    def predict_proba(self, features: Any) -> np.ndarray:
        return np.column_stack([1 - self.scores, self.scores])


def rows(count: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Make rows, and scores that are right but in one slice: number_3 > 0.9, level_2 is "2"."""
    random = np.random.default_rng(0)
    table: dict[str, Any] = {f"number_{n}": random.normal(size=count) for n in range(NUMBERS)}
    for n in range(LEVELS):
        names = np.array([f"{k}" for k in range(3 + 2 * n)])
        table[f"level_{n}"] = names[random.integers(0, len(names), count)]
    log_odds = table["number_0"] + 0.5 * table["number_1"] + 0.7 * (table["level_0"] == "1")
    scores = 1 / (1 + np.exp(-log_odds))
    truth = (random.random(count) < scores).astype(int)
    weak = (table["number_3"] > 0.9) & (table["level_2"] == "2") & (random.random(count) < 0.3)
    return pl.DataFrame({**table, "y": np.where(weak, 1 - truth, truth)}), scores


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall seconds, CPU seconds and the result of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def peak_mib() -> float:
    """Return the most memory that the process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def beside(table: pl.DataFrame, scores: np.ndarray) -> Any:
    """Let scikit-learn and fairlearn measure the same answers, in an environment of their own."""
    programs = make_environment("fairlearn")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "answers.npz"
        groups = {name: table[name].to_numpy().astype(str) for name in ("level_1", "level_7")}
        np.savez(file, truth=table["y"].to_numpy(), scores=scores, **groups)
        command = [programs / "python", PEERS / "fairlearn_evaluate.py", file]
        done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
