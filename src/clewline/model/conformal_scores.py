"""The conformal scores of a version: file `conformal.msgpack` of a package, made of test rows."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from clewline.errors import IntegrityError, InvalidInput
from clewline.evaluation.conformal import aps_scores, lac_scores, true_scores
from clewline.evaluation.metrics import Floats, Integers
from clewline.model.families.family import CONFORMAL, REGISTER_AGAIN, PackageContents
from clewline.model.package import Package
from clewline.model.runtime.outputs import Outputs, plain_label
from clewline.model_families import family_named
from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

MAX_ROWS = 10_000
"""Test rows that get scores, drawn with a seed; with them, coverage varies by about 0.3 points."""


class ConformalScores(msgspec.Struct, frozen=True, kw_only=True):
    """
    How badly the served answers fit the truth of test rows.

    Arrays are little-endian bytes: float64 scores and answers, int32 labels.
    """

    rows: int  # that have scores
    of_rows: int  # of the test table
    scores: dict[str, bytes]  # "lac" and "aps" of a classifier, "residual" of a regression
    labels: bytes = b""  # of a classifier: place of the true label in the signature
    answers: bytes = b""  # of a regression: the model's value

    def of(self, method: str) -> Floats:
        """Return the scores of a method, shape (rows,)."""
        return np.frombuffer(self.scores[method], dtype="<f8").astype(np.float64)

    @property
    def true_labels(self) -> Integers:
        """Return the true labels, shape (rows,)."""
        return np.frombuffer(self.labels, dtype="<i4").astype(np.int64)

    @property
    def values(self) -> Floats:
        """Return the model's values, shape (rows,)."""
        return np.frombuffer(self.answers, dtype="<f8").astype(np.float64)


def score_test_rows(contents: PackageContents, test: Any, target: str | None) -> bytes | None:
    """
    Score the answers of a converted model to test rows.

    Args:
        contents: The model as it will be served.
        test: Rows that it has not seen, with the target; or None.
        target: The column that it predicts.

    Returns:
        The file; None without test rows, and for models without probabilities or values.
    """
    signature, output = contents.signature, contents.signature.output
    is_classifier = output.labels is not None and output.has_probabilities
    if test is None or target is None or not (is_classifier or output.task == "regression"):
        return None
    table = dataframes.open_table(test)
    if target not in table.columns or not len(table):
        return None
    count = min(len(table), MAX_ROWS)
    drawn = np.sort(np.random.default_rng(0).permutation(len(table))[:count])
    columns, kept = _accepted(table[drawn.tolist(), :].to_native(), signature)
    targets = dataframes.column_values(test, target)
    truth = [targets[row] for row in drawn[kept].tolist()]
    known = [place for place, value in enumerate(truth) if value is not None]
    if not known:
        return None
    predictor = family_named(contents.compiled.runtime).load(contents.compiled.files, signature)
    try:
        answered = predictor.predict(columns)
    finally:
        predictor.close()
    return msgspec.msgpack.encode(_scores(answered, truth, known, signature, len(table)))


def read_conformal_scores(package: Package) -> ConformalScores | None:
    """
    Read the scores of a package; None if the version has none.

    Raises:
        IntegrityError: The file was changed, or this clewline cannot read it.
    """
    if CONFORMAL not in package.manifest.files:
        return None
    try:
        return msgspec.msgpack.decode(package.read_file(CONFORMAL), type=ConformalScores)
    except msgspec.MsgspecError as error:
        raise IntegrityError(f"{CONFORMAL} cannot be read: {error}.", REGISTER_AGAIN) from error


def _accepted(table: Any, signature: Signature) -> tuple[Columns, Any]:
    """Return the rows that an endpoint accepts, and their places."""
    opened = dataframes.open_table(table).select([field.name for field in signature.fields])
    checker = Checker(signature)
    places = np.arange(len(opened))
    try:
        return checker.table(opened.to_native()).columns, places
    except InvalidInput as error:
        refused = {problem.row for problem in error.fields}
        if not refused or len(refused) >= len(opened):
            raise
    kept = np.array([place for place in places.tolist() if place not in refused])
    return checker.table(opened[kept.tolist(), :].to_native()).columns, kept


def _scores(
    answered: Outputs, truth: list[Any], known: list[int], signature: Signature, of_rows: int
) -> ConformalScores:
    if answered.values is not None:
        wanted = np.array([float(truth[place]) for place in known])
        values = answered.values[known]
        return ConformalScores(
            rows=len(known),
            of_rows=of_rows,
            scores={"residual": _floats(np.abs(wanted - values))},
            answers=_floats(values),
        )
    assert answered.probabilities is not None, "the signature says so"
    labels = list(signature.output.labels or ())
    places = {plain_label(label): place for place, label in enumerate(labels)}
    indices = np.array([places.get(plain_label(truth[place]), len(labels)) for place in known])
    shares = answered.probabilities[known]
    uniforms = np.random.default_rng(0).random(len(known))
    return ConformalScores(
        rows=len(known),
        of_rows=of_rows,
        scores={
            "lac": _floats(true_scores(lac_scores(shares), indices)),
            "aps": _floats(true_scores(aps_scores(shares, uniforms), indices)),
        },
        labels=indices.astype("<i4").tobytes(),
    )


def _floats(values: Floats) -> bytes:
    return values.astype("<f8").tobytes()
