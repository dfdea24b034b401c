"""
Synthetic rows: where a converted model would differ from its original if it could.

Each takes a row of the test table and changes it: a number to just below, on and just
above a split threshold; a field to null; a string to a level that nobody has seen, or to
the words that careless code takes for null; every field drawn from another row; all
numbers to zero or one, or one of them to a huge value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime.outputs import take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

MAX_THRESHOLDS = 4000
"""Most split thresholds that are tried, drawn evenly at random from all."""

MIXED = 1000
"""Rows whose fields each come from another row."""

ROWS_PER_NULL = 4

EXTREMES = "extremes"
"""Kind of the rows of zeros, ones and huge values. Compare them apart from the others: their
answers may be so large that a difference relative to the largest says nothing of ordinary rows."""

HUGE = (1e6, -1e6, 1e30, -1e30)
"""Values that one field at a time is set to; estimators in float32 still take them."""

ODD_TEXTS = ("", "None", "nan", "NaN", "null", "<NA>", "\x00", "never seen")
"""Texts that are none of a model's levels, or are mistaken for null."""

ODD_PROSE = (
    " ",
    ".",
    "a",
    "A b C dd",
    "it's under_score and-dash, e-mail@host.org!",
    "12 345.67 1e9 0x1F",
    "naïve café Straße ŒUVRE",
    "İstanbul ISPARTA ı",
    "日本語 текст עברית العربية",
    "e\u0301 and \u00e9, \u200bzero\u00a0width",
    "line\nbreak\ttab\r\nend",
    "🙂 👍🏽 emoji",
    "word " * 500,
    "x" * 5000,
)
"""Texts of all alphabets, marks and lengths."""

AFFIXES = ("{}é", "ß{}", "{}_x", "{}7", "{}'s", "日{}", "{}\u0301", "-{}-")

RowEdit = tuple[str, Any, Any]
"""What is changed in one row: "numbers" or "texts", the places of its fields, and their value."""


def synthetic_rows(
    table: Columns,
    signature: Signature,
    thresholds: Sequence[tuple[int, float]],
    declared: Mapping[str, Sequence[str]],
    seed: int = 0,
) -> dict[str, Columns]:
    """
    Return synthetic rows of each kind.

    Args:
        table: Rows to start from, at least one.
        signature: Says which fields may be null, and the levels.
        thresholds: Split points of the model as (index of the numeric field, value).
        declared: Levels of each text field that its column type declares.
        seed: Of the draw.
    """
    draw = np.random.default_rng(seed)

    def edited(edits: list[RowEdit]) -> Columns:
        rows = take_rows(table, _places(len(table), len(edits), draw))
        for place, (matrix, fields, value) in enumerate(edits):
            getattr(rows, matrix)[place, fields] = value
        return rows

    chosen = draw.permutation(len(thresholds))[:MAX_THRESHOLDS]
    kinds = {
        "split thresholds": edited(_threshold_edits(signature, [thresholds[i] for i in chosen])),
        "nulls": _nulls(table, signature, draw),
        "texts": edited(_text_edits(table, signature, declared)),
        "mixed": _mixed(table, draw),
        EXTREMES: edited(_extreme_edits(signature)),
    }
    return {kind: rows for kind, rows in kinds.items() if len(rows)}


def count_tried(thresholds: Sequence[tuple[int, float]]) -> int:
    """Return how many thresholds get rows of their own."""
    return min(len(thresholds), MAX_THRESHOLDS)


def _threshold_edits(
    signature: Signature, thresholds: Sequence[tuple[int, float]]
) -> list[RowEdit]:
    edits: list[RowEdit] = []
    for field, value in thresholds:
        points = [np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)]
        kind = signature.numeric[field].kind
        if kind in ("integer", "boolean"):
            points += [np.floor(value), np.floor(value) + 1]
        allowed = [point for point in points if kind != "boolean" or point in (0.0, 1.0)]
        edits += [("numbers", field, point) for point in allowed]
    return edits


def _nulls(table: Columns, signature: Signature, draw: np.random.Generator) -> Columns:
    """Set each field that may be null to null, one at a time, and then all of them."""
    numbers = [i for i, field in enumerate(signature.numeric) if field.nullable]
    texts = [i for i, field in enumerate(signature.textual) if field.nullable]
    single = [*(([i], []) for i in numbers), *(([], [i]) for i in texts)]
    edits = [*single, (numbers, texts)] if single else []
    rows = take_rows(table, _places(len(table), len(edits) * ROWS_PER_NULL, draw))
    for place in range(len(rows)):
        null_numbers, null_texts = edits[place // ROWS_PER_NULL]
        rows.numbers[place, null_numbers] = np.nan
        rows.texts[place, null_texts] = None
    return rows


def _text_edits(
    table: Columns, signature: Signature, declared: Mapping[str, Sequence[str]]
) -> list[RowEdit]:
    edits: list[RowEdit] = []
    for index, field in enumerate(signature.textual):
        is_category = field.kind == "category"
        levels = (field.levels or ())[:500] if is_category else odd_texts(table.texts[:, index])
        levels = (*ODD_TEXTS, *levels, *declared.get(field.name, ())[:500])
        edits += [("texts", index, text) for text in levels]
    return edits


def _extreme_edits(signature: Signature) -> list[RowEdit]:
    """Set every number to 0 or 1, and one at a time to a huge value; dates stay as they are."""
    kinds = [field.kind for field in signature.numeric]
    places = [index for index, kind in enumerate(kinds) if kind != "datetime"]
    if not places:
        return []
    single = [index for index in places if kinds[index] in ("number", "integer")]
    pairs = [(i, v) for i in single for v in HUGE if kinds[i] == "number" or abs(v) < 1e9]
    huge = [("numbers", index, value) for index, value in pairs]
    return [("numbers", places, 0.0), ("numbers", places, 1.0), *huge]


def odd_texts(texts: NDArray[Any]) -> tuple[str, ...]:
    """
    Return texts on which cutting out words differs, if it can.

    Words that the model may know are glued to letters, digits and marks: cut in
    another place they are words that it knows, or no longer are.
    """
    words = sorted({word for text in texts[:1000].tolist() if text for word in text.split()})
    few = [" ".join(words[at : at + 10]) for at in range(0, min(len(words), 2000), 10)]
    glued = [
        " ".join(form.format(word) for word in words[at : at + 10])
        for form in AFFIXES
        for at in range(0, min(len(words), 400), 10)
    ]
    return (*ODD_PROSE, *few, *(text.upper() for text in few[:40]), *glued)


def _mixed(table: Columns, draw: np.random.Generator) -> Columns:
    rows = take_rows(table, _places(len(table), MIXED, draw))
    for matrix, source in ((rows.numbers, table.numbers), (rows.texts, table.texts)):
        for column in range(source.shape[1]):
            matrix[:, column] = source[_places(len(table), MIXED, draw), column]
    return rows


def _places(total: int, count: int, draw: np.random.Generator) -> NDArray[np.intp]:
    return draw.integers(0, total, count).astype(np.intp)
