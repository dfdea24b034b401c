"""Which labels a classifier takes for which."""

from __future__ import annotations

import msgspec
import numpy as np

from clewline.evaluation.metrics import Integers
from clewline.signature.infer import Label

LARGEST_TABLE = 30
"""Labels of a classifier whose whole table is kept."""

LISTED_PAIRS = 20


class ConfusedPair(msgspec.Struct, frozen=True):
    """Rows of one label that were answered with another."""

    truth: Label
    answer: Label
    rows: int


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """Test rows by their label and by the answer."""

    labels: tuple[Label, ...]
    counts: list[list[int]] | None  # [truth][answer]; None above 30 labels
    pairs: list[ConfusedPair]  # the most frequent mistakes, up to 20


def count_confusion(truth: Integers, chosen: Integers, labels: tuple[Label, ...]) -> Confusion:
    """
    Count test rows by label and answer.

    Args:
        truth: Label indices, shape (n,).
        chosen: Answered label indices, shape (n,).
        labels: What the indices stand for.
    """
    pairs, rows = np.unique(np.stack([truth, chosen]), axis=1, return_counts=True)
    wrong = np.flatnonzero(pairs[0] != pairs[1])
    most = wrong[np.argsort(-rows[wrong], kind="stable")][:LISTED_PAIRS]
    counts = None
    if len(labels) <= LARGEST_TABLE:
        table = np.zeros((len(labels), len(labels)), dtype=np.int64)
        table[pairs[0], pairs[1]] = rows
        counts = table.tolist()
    return Confusion(
        labels=labels,
        counts=counts,
        pairs=[
            ConfusedPair(labels[int(pairs[0, at])], labels[int(pairs[1, at])], int(rows[at]))
            for at in most
        ],
    )
