"""Models that take texts: vectorizers of scikit-learn, which want no table but its one column."""

from __future__ import annotations

from typing import Any

VECTORIZERS = frozenset({"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"})


def takes_texts(model: Any) -> bool:
    """Whether a model takes a list of texts in place of a table."""
    return _is_vectorizer(first_of(model))


def text_columns(model: Any) -> list[str]:
    """Name the columns of a table that a model's vectorizers read."""
    first = first_of(model)
    parts = getattr(first, "transformers_", ())
    return [columns for _, inner, columns in parts if _reads_one(inner, columns)]


def first_of(model: Any) -> Any:
    """Give what a model's input reaches first."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif type(model).__name__ == "Pipeline":
            model = model.steps[0][1]
        else:
            return model


def _reads_one(inner: Any, columns: Any) -> bool:
    return isinstance(columns, str) and _is_vectorizer(first_of(inner))


def _is_vectorizer(step: Any) -> bool:
    return type(step).__name__ in VECTORIZERS and type(step).__module__.startswith("sklearn.")
