"""What goes into a package: a trained model, as it is served, with signature and profile."""

from __future__ import annotations

from typing import Any

from clewline.model.kinds.find import kind_of
from clewline.model.kinds.kind import Contents, Given
from clewline.signature.field import Signature

__all__ = ["Contents", "make"]


def make(
    model: Any,
    *,
    train: Any | None = None,
    test: Any | None = None,
    target: str | None = None,
    signature: Signature | None = None,
    **options: Any,
) -> Contents:
    """
    Make the files of a package.

    Args:
        model: Of any kind that `kinds.find` knows.
        train: The table that it was fitted on, with the target.
        test: Rows that it has not seen, with the target or without.
        target: The column that it predicts.
        signature: What goes in and out, where the kind does not infer it.
        options: What only the kind itself knows.

    Raises:
        InvalidInput: A table lacks a column of the model's, or holds what has no kind.
        NotSupported: It is of no kind, or has no safe form.
    """
    given = Given(train=train, test=test, target=target, signature=signature, options=options)
    return kind_of(model).contents(model, given)
