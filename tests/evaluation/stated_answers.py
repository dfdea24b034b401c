"""A model whose answers a test states."""

from __future__ import annotations

from typing import Any

import numpy as np


class StatedAnswers:
    """Answers what it was made with, whatever it is asked."""

    def __init__(self, answers: Any, classes: Any = None, probabilities: Any = None) -> None:
        self.answers = np.asarray(answers)
        if classes is not None:
            self.classes_ = np.asarray(classes)
        if probabilities is not None:
            self.predict_proba = lambda features: np.asarray(probabilities)

    def predict(self, features: Any) -> Any:
        return self.answers


def scored(scores: Any) -> StatedAnswers:
    """A classifier of 0 and 1 with these probabilities of 1."""
    scores = np.asarray(scores, dtype=np.float64)
    return StatedAnswers((scores > 0.5).astype(int), [0, 1], np.column_stack([1 - scores, scores]))
