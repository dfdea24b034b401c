"""
Rows made to tell a compiled form from its original: where the two would differ if they could.

Each takes a row of the test table and changes it: a number to just below, on and just
above a split threshold; a field to null; a text to a level that nobody has seen, or to
the words that careless code takes for null; every field drawn from another row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime.outputs import take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

THRESHOLDS = 4000
"""Split thresholds that are tried at most, drawn evenly at random from all."""

MIXED = 1000
"""Rows whose fields come each from another row."""

EACH = 4
"""Rows for each null."""

ODD = ("", "None", "nan", "NaN", "null", "<NA>", "\x00", "never seen")
"""Texts that are none of a model's levels, or are mistaken for null."""

PROSE = (
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

GLUED = ("{}é", "ß{}", "{}_x", "{}7", "{}'s", "日{}", "{}\u0301", "-{}-")


def made_rows(
    table: Columns, signature: Signature, thresholds: Sequence[tuple[int, float]], seed: int = 0
) -> dict[str, Columns]:
    """
    Make rows of each kind.

    Args:
        table: Rows to start from, at least one.
        signature: Says which fields may be null, and the levels.
        thresholds: Split points of the model as (index of the numeric field, value).
        seed: Of the draw.
    """
    draw = np.random.default_rng(seed)
    kinds = {
        "split thresholds": _at_thresholds(table, signature, thresholds, draw),
        "nulls": _with_nulls(table, signature, draw),
        "texts": _with_texts(table, signature, draw),
        "mixed": _mixed(table, draw),
    }
    return {kind: rows for kind, rows in kinds.items() if len(rows)}


def tried(thresholds: Sequence[tuple[int, float]]) -> int:
    """Count the thresholds that get rows of their own."""
    return min(len(thresholds), THRESHOLDS)


def _at_thresholds(
    table: Columns,
    signature: Signature,
    thresholds: Sequence[tuple[int, float]],
    draw: np.random.Generator,
) -> Columns:
    chosen = draw.permutation(len(thresholds))[:THRESHOLDS]
    changes = []
    for field, value in (thresholds[index] for index in chosen):
        points = [np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)]
        kind = signature.numeric[field].kind
        if kind in ("integer", "boolean"):
            points += [np.floor(value), np.floor(value) + 1]
        changes += [(field, p) for p in points if kind != "boolean" or p in (0.0, 1.0)]
    rows = _some(table, len(changes), draw)
    for place, (field, point) in enumerate(changes):
        rows.numbers[place, field] = point
    return rows


def _with_nulls(table: Columns, signature: Signature, draw: np.random.Generator) -> Columns:
    numbers = [i for i, field in enumerate(signature.numeric) if field.nullable]
    texts = [i for i, field in enumerate(signature.textual) if field.nullable]
    rows = _some(table, EACH * (len(numbers) + len(texts) + bool(numbers or texts)), draw)
    place = 0
    for number in numbers:
        rows.numbers[place : place + EACH, number] = np.nan
        place += EACH
    for text in texts:
        rows.texts[place : place + EACH, text] = None
        place += EACH
    rows.numbers[place:, numbers] = np.nan
    rows.texts[place:, texts] = None
    return rows


def _with_texts(table: Columns, signature: Signature, draw: np.random.Generator) -> Columns:
    changes: list[tuple[int, Any]] = []
    for index, field in enumerate(signature.textual):
        levels = (
            (field.levels or ())[:500] if field.kind == "category" else prose(table.texts[:, index])
        )
        changes += [(index, text) for text in (*ODD, *levels)]
    rows = _some(table, len(changes), draw)
    for place, (column, text) in enumerate(changes):
        rows.texts[place, column] = text
    return rows


def prose(texts: NDArray[Any]) -> tuple[str, ...]:
    """
    Make texts on which cutting words out differs, where it can.

    Words that the model may know are glued to letters, digits and marks: cut in
    another place they are words that it knows, or are no more.
    """
    words = sorted({word for text in texts[:1000].tolist() if text for word in text.split()})
    few = [" ".join(words[at : at + 10]) for at in range(0, min(len(words), 2000), 10)]
    glued = [
        " ".join(form.format(word) for word in words[at : at + 10])
        for form in GLUED
        for at in range(0, min(len(words), 400), 10)
    ]
    return (*PROSE, *few, *(text.upper() for text in few[:40]), *glued)


def _mixed(table: Columns, draw: np.random.Generator) -> Columns:
    rows = _some(table, MIXED, draw)
    for matrix, source in ((rows.numbers, table.numbers), (rows.texts, table.texts)):
        for column in range(source.shape[1]):
            matrix[:, column] = source[_places(len(table), MIXED, draw), column]
    return rows


def _some(table: Columns, count: int, draw: np.random.Generator) -> Columns:
    return take_rows(table, _places(len(table), count, draw))


def _places(total: int, count: int, draw: np.random.Generator) -> NDArray[np.intp]:
    return draw.integers(0, total, count).astype(np.intp)
