"""Pipelines taken apart: the estimator that decides, the steps before it, and who takes texts."""

from __future__ import annotations

from typing import Any

VECTORIZERS = frozenset({"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"})


def final_and_steps(model: Any) -> tuple[Any, list[Any]]:
    """Return the estimator that decides, and the transformers before it."""
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    steps: list[Any] = []
    while type(model).__name__ == "Pipeline":
        parts = [part for _, part in model.steps if part is not None and part != "passthrough"]
        steps += parts[:-1]
        model = parts[-1]
    return model, steps


def first_step(model: Any) -> Any:
    """Return the step that a model's input reaches first."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif type(model).__name__ == "Pipeline":
            model = model.steps[0][1]
        else:
            return model


def takes_texts(model: Any) -> bool:
    """Say whether a model takes a list of strings instead of a table: a vectorizer comes first."""
    first = first_step(model)
    return type(first).__name__ in VECTORIZERS and type(first).__module__.startswith("sklearn.")


def text_columns(model: Any) -> list[str]:
    """Name the columns of a table that a model's vectorizers read."""
    parts = getattr(first_step(model), "transformers_", ())
    return [
        columns for _, inner, columns in parts if isinstance(columns, str) and takes_texts(inner)
    ]
