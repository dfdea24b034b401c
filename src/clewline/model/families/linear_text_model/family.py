"""
Linear models over bags of words or characters, without the library that trained them.

    text ─► terms (words, runs of words or of characters) ─► counts of known terms
         ─► weighed (tf-idf, norm) ─► scores, by a weight for each term ─► labels, or a value

Terms are cut out by Python's own `re` and `str`, as scikit-learn's vectorizers do it, so
that they are the same in every alphabet. Each row is computed separately: its bits do not
depend on the batch.
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem, IntegrityError, InvalidInput
from clewline.model.families.family import REGISTER_AGAIN, Family, decode_file, require_files
from clewline.model.runtime.outputs import FunctionPredictor, Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

SPEC, TERMS, WEIGHTS, BIAS, IDF = (
    "linear_text.json",
    "terms.json",
    "weights.npy",
    "bias.npy",
    "idf.npy",
)
"""The files of a package; `idf.npy` only where terms are weighed by it."""

Floats = NDArray[np.float64]


class LinearTextSpec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a text becomes numbers and numbers become an answer: file `linear_text.json`."""

    field: str
    analyzer: Literal["word", "char", "char_wb"]
    ngrams: tuple[int, int]  # least and most words, or characters, of a term
    pattern: str | None = None  # of a word
    lower: bool = True
    accents: Literal["unicode", "ascii"] | None = None  # how they are taken off
    stop_words: tuple[str, ...] = ()
    binary: bool = False  # a term counts once
    sublinear: bool = False  # 1 + ln(count)
    idf: bool = False  # whether counts are weighed by `idf.npy`
    norm: Literal["l1", "l2"] | None = None
    link: Literal["sigmoid", "softmax", "shares", "labels", "value"]


class LinearTextFamily(Family):
    """Loads JSON and arrays, neither code nor pickle. scikit-learn's models are converted to it."""

    name = "linear_text_model"
    title = "linear text model"

    def load(self, files: Mapping[str, bytes], signature: Signature) -> FunctionPredictor:
        """Load a model; errors as of `Family.load`."""
        require_files(files, SPEC, TERMS, WEIGHTS, BIAS)
        spec = decode_file(files, SPEC, LinearTextSpec)
        terms = decode_file(files, TERMS, list[str])
        if spec.idf:
            require_files(files, IDF)
        try:
            weights, bias = array_from_bytes(files[WEIGHTS]), array_from_bytes(files[BIAS])
            idf = array_from_bytes(files[IDF]) if spec.idf else None
            cut = term_splitter(spec)
        except (ValueError, EOFError, re.error) as error:
            raise IntegrityError(
                f"The files of a linear text model cannot be read: {error}.", REGISTER_AGAIN
            ) from error
        if weights.shape != (len(terms), len(bias)) or (idf is not None and len(idf) != len(terms)):
            raise IntegrityError(
                f"{len(terms)} terms have weights of the shape {list(weights.shape)}.",
                REGISTER_AGAIN,
            )
        column = [field.name for field in signature.textual].index(spec.field)
        return FunctionPredictor(_scorer(spec, terms, weights, bias, idf, cut, column))


def _scorer(
    spec: LinearTextSpec,
    terms: list[str],
    weights: Floats,
    bias: Floats,
    idf: Floats | None,
    cut: Callable[[str], list[str]],
    column: int,
) -> Callable[[Columns], Outputs]:
    """Return a function that answers texts by the weights of their terms."""
    place_of = {term: place for place, term in enumerate(terms)}.get
    weights = np.ascontiguousarray(weights)

    def score(text: str) -> Floats:
        found = Counter(map(place_of, cut(text)))
        found.pop(None, None)
        if not found:
            return bias
        places = np.fromiter(found.keys(), np.intp, len(found))
        counts: Floats = np.fromiter(found.values(), np.float64, len(found))
        if spec.binary:
            counts = np.ones(len(counts))
        if spec.sublinear:
            counts = np.log(counts) + 1.0
        if idf is not None:
            counts = counts * idf[places]
        if spec.norm is not None:
            size = np.abs(counts).sum() if spec.norm == "l1" else math.sqrt((counts * counts).sum())
            counts = counts / size if size else counts
        total: Floats = np.add.reduce(counts[:, None] * weights[places], axis=0) + bias
        return total

    def answer(columns: Columns) -> Outputs:
        texts = columns.texts[:, column].tolist()
        if None in texts:
            places = (row for row, text in enumerate(texts) if text is None)
            problems = tuple(
                FieldProblem(row, spec.field, None, "a string: not null") for row in places
            )
            raise InvalidInput("The model takes no null.", "Send a string.", problems)
        scores = np.empty((len(texts), len(bias)))
        for row, text in enumerate(texts):
            scores[row] = score(text)
        return _answer(scores, spec.link)

    return answer


def array_from_bytes(data: bytes) -> Floats:
    """Read an array of numbers; what is pickled is refused."""
    found = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(found, np.ndarray) or found.dtype != np.float64:
        raise ValueError("a file of float64 holds something else")
    return found


def array_to_bytes(array: NDArray[Any]) -> bytes:
    """Write an array as float64."""
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array, dtype=np.float64), allow_pickle=False)
    return out.getvalue()


# Terms


def term_splitter(spec: LinearTextSpec) -> Callable[[str], list[str]]:
    """Return a function that cuts a text into its terms, as `build_analyzer` of scikit-learn."""
    find = re.compile(spec.pattern or "").findall
    stop, (least, most) = frozenset(spec.stop_words), spec.ngrams

    def cut(text: str) -> list[str]:
        if spec.lower:
            text = text.lower()
        if spec.accents is not None:
            text = _without_accents(text, spec.accents)
        if spec.analyzer != "word":
            text = _SPACES.sub(" ", text)
            in_words = spec.analyzer == "char_wb"
            return (_within_words if in_words else _characters)(text, least, most)
        found: list[str] = find(text)
        if stop:
            found = [word for word in found if word not in stop]
        return found if most == 1 else _runs(found, least, most)

    return cut


_SPACES = re.compile(r"\s\s+")


def _runs(words: list[str], least: int, most: int) -> list[str]:
    """Return words one after the other, from `least` to `most` of them."""
    runs = list(words) if least == 1 else []
    for size in range(max(least, 2), min(most, len(words)) + 1):
        runs += [" ".join(words[at : at + size]) for at in range(len(words) - size + 1)]
    return runs


def _characters(text: str, least: int, most: int) -> list[str]:
    length = len(text)
    sizes = range(least, min(most, length) + 1)
    return [text[at : at + size] for size in sizes for at in range(length - size + 1)]


def _within_words(text: str, least: int, most: int) -> list[str]:
    """Return characters of each word between spaces; a shorter word counts once, whole."""
    found: list[str] = []
    for word in text.split():
        padded, length = f" {word} ", len(word) + 2
        for size in range(least, most + 1):
            found += [padded[at : at + size] for at in range(max(length - size, 0) + 1)]
            if length <= size:
                break
    return found


def _without_accents(text: str, kind: str) -> str:
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFKD", text)
    if kind == "ascii":
        return apart.encode("ascii", "ignore").decode("ascii")
    return "".join(each for each in apart if not unicodedata.combining(each))


# Answers


def _answer(scores: Floats, link: str) -> Outputs:
    """Turn scores, shape (n, targets), into answers, each number by `math` so that bits repeat."""
    if link == "value":
        return Outputs(values=scores[:, 0].copy())
    if scores.shape[1] == 1:
        choices = (scores[:, 0] > 0).astype(np.int64)
    else:
        choices = np.asarray(scores.argmax(axis=1), dtype=np.int64)
    if link == "labels":
        return Outputs(choices=choices)
    rows = scores.tolist()
    if link == "softmax":
        tops = zip(rows, map(max, rows), strict=True)
        powers = [[math.exp(score - top) for score in row] for row, top in tops]
    else:
        powers = [[_logistic(score) for score in row] for row in rows]
    each = np.array(powers).reshape(scores.shape)
    if link == "sigmoid":
        return Outputs(choices, np.column_stack([1.0 - each, each]))
    return Outputs(choices, each / each.sum(axis=1, keepdims=True))  # softmax, or one against rest


def _logistic(score: float) -> float:
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    power = math.exp(score)
    return power / (1.0 + power)
