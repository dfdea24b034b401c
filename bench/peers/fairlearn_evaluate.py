"""Measures answers with scikit-learn and fairlearn: prints the seconds of each part."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from fairlearn.metrics import (
    MetricFrame,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from sklearn import metrics


def main(file: str) -> None:
    """Measure once, without intervals; then estimate what 1,000 resamples would take."""
    with np.load(file) as answers:
        truth, scores = answers["truth"], answers["scores"]
        groups = {name: answers[name] for name in answers.files if name.startswith("level")}
    chosen = (scores > 0.5).astype(int)

    def measure() -> None:
        for each in (
            metrics.accuracy_score,
            metrics.balanced_accuracy_score,
            metrics.precision_score,
            metrics.recall_score,
            metrics.f1_score,
        ):
            each(truth, chosen)
        for each in (
            metrics.roc_auc_score,
            metrics.average_precision_score,
            metrics.log_loss,
            metrics.brier_score_loss,
        ):
            each(truth, scores)

    def compare() -> None:
        rates = {
            "selection_rate": selection_rate,
            "true_positive_rate": true_positive_rate,
            "false_positive_rate": false_positive_rate,
            "precision": metrics.precision_score,
            "accuracy": metrics.accuracy_score,
        }
        for group in groups.values():
            frame = MetricFrame(
                metrics=rates, y_true=truth, y_pred=chosen, sensitive_features=group
            )
            frame.difference(), frame.ratio()

    seconds = {}
    for name, part in (("metrics_s", measure), ("fairness_s", compare)):
        started = time.process_time()
        part()
        seconds[name] = round(time.process_time() - started, 2)
    seconds["1000_resamples_would_take_s"] = round(1000 * sum(seconds.values()))
    json.dump(seconds, sys.stdout)


main(*sys.argv[1:])
