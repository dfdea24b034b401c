"""
The training sample of a package: training rows, their truth, and what the served model answers.

A Parquet file with a column for each field, for the truth and for the answers. Explainers read it
when they need it; the prediction server does not.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import IntegrityError, InvalidInput, ModelFailed
from clewline.model.families.family import REGISTER_AGAIN, TRAINING_SAMPLE
from clewline.model.runtime.outputs import (
    Outputs,
    Predictor,
    join_outputs,
    plain_label,
    take_rows,
)
from clewline.signature.columns import Columns
from clewline.signature.dataframes import cell_values, column_floats, open_table
from clewline.signature.field import Output, Signature

if TYPE_CHECKING:
    import polars as pl

    from clewline.store.digest import Digest

SAMPLE_ROWS = 10_000
SAMPLE_BYTES = 8_000_000
"""Size of the rows in memory: a number counts 8 bytes, a text its characters."""

ANSWER_S = 30
"""A model that would take longer to answer all rows is not asked."""

SAMPLED = ("binary", "multiclass", "regression")
"""Tasks whose packages have a sample."""

_FIRST_CALL, _ROWS_PER_CALL = 16, 1000
_FIELD, _TRUTH, _CHOICE, _PROBABILITY, _VALUE = (
    "field.",
    "truth",
    "answer.choice",
    "answer.probability.",
    "answer.value",
)


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """Training rows drawn uniformly, none twice; one entry a row in every array."""

    columns: Columns
    truth: NDArray[Any] | None
    """Index into the signature's labels, -1 for none of them; or values, NaN for null."""
    answers: Outputs | None
    """What the served model answers; None if it refused a row, or would have taken too long."""
    of_rows: int  # of the training table

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns)


def encode_sample(
    signature: Signature,
    train: Columns,
    truth: NDArray[Any] | None,
    predictor: Predictor,
    *,
    rows: int = SAMPLE_ROWS,
    seed: int = 0,
) -> bytes:
    """
    Draw training rows, ask the served model about them, and write them as Parquet.

    Args:
        signature: Of the model; its task is one of `SAMPLED`.
        train: Checked rows of the training table.
        truth: Of each row, as in a `TrainingSample`; None if it is not known.
        predictor: The model as it will be served.
        rows: Maximum number of rows; fewer if they are large.
        seed: Of the draw.
    """
    drawn = _draw(train, rows, seed)
    columns = take_rows(train, drawn)
    known = None if truth is None else truth[drawn]
    table = _table(signature, columns, known, _answers(predictor, columns))
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def decode_sample(data: bytes, signature: Signature, of_rows: int) -> TrainingSample:
    """
    Read what `encode_sample` wrote.

    Raises:
        IntegrityError: It holds other columns than the signature says.
    """
    import polars as pl

    table = _read(data)
    try:
        numbers = [table[_FIELD + field.name].to_numpy() for field in signature.numeric]
        texts = [table[_FIELD + field.name].to_list() for field in signature.textual]
        tensors = {
            field.name: np.frombuffer(
                b"".join(table[_FIELD + field.name].to_list()), _little_endian(field.dtype)
            )
            .astype(field.dtype)
            .reshape((len(table), *(field.shape or ())))
            for field in signature.tensors
        }
        columns = Columns(
            _matrix(numbers, len(table), np.float64), _matrix(texts, len(table), object), tensors
        )
    except (pl.exceptions.PolarsError, ValueError, TypeError) as error:
        raise _damaged(error) from error
    names = set(table.columns)
    truth = table[_TRUTH].to_numpy() if _TRUTH in names else None
    answers = None
    if _VALUE in names:
        answers = Outputs(values=table[_VALUE].to_numpy())
    elif _CHOICE in names:
        shares = [table[name].to_numpy() for name in table.columns if name.startswith(_PROBABILITY)]
        answers = Outputs(
            choices=table[_CHOICE].to_numpy(),
            probabilities=_matrix(shares, len(table), np.float64) if shares else None,
        )
    return TrainingSample(columns, truth, answers, of_rows)


def sample_digest(data: bytes) -> Digest:
    """
    Return the digest of the rows and their truth.

    Neither the file's format nor the answers count: another version of a library may write the
    same rows in other bytes, or answer with another last bit.
    """
    from clewline.flow import values

    table = _read(data)
    return values.digest(table.select(n for n in table.columns if not n.startswith("answer.")))


def truth_of(table: Any, target: str | None, output: Output) -> NDArray[Any] | None:
    """
    Read the truth of each row of a table, as a `TrainingSample` holds it.

    Returns:
        None if the table has no such column, or none of values that the model could answer.
    """
    opened = open_table(table)
    name = output.name if target is None else target
    if name not in opened.columns or output.task not in SAMPLED:
        return None
    if output.labels is None:
        dtype = opened[name].dtype
        return column_floats(opened[name]) if dtype.is_numeric() else None
    places = {label: place for place, label in enumerate(output.labels)}
    cells = [plain_label(cell) for cell in cell_values(opened[name])]
    found = np.array([places.get(cell, -1) for cell in cells], dtype=np.int64)
    return found if (found >= 0).any() else None


def _draw(train: Columns, rows: int, seed: int) -> NDArray[np.intp]:
    """Draw rows, none twice, in their order; fewer than `rows` if they are large."""
    count = min(len(train), rows)
    drawn = np.random.default_rng(seed).permutation(len(train))[:count]
    size = train.numbers[0].nbytes * count if count else 0
    size += sum(tensor[0].nbytes * count for tensor in train.tensors.values() if count)
    size += sum(len(text) for text in train.texts[drawn].ravel() if text is not None)
    if size > SAMPLE_BYTES:
        drawn = drawn[: max(1, count * SAMPLE_BYTES // size)]
    return np.sort(drawn)


def _answers(predictor: Predictor, columns: Columns) -> Outputs | None:
    """Ask about all rows; None if the model refuses one, or would take too long."""
    started, parts, at = time.perf_counter(), [], 0
    try:
        while at < len(columns):
            end = at + (_ROWS_PER_CALL if at else _FIRST_CALL)
            parts.append(predictor.predict(take_rows(columns, slice(at, end))))
            at = min(end, len(columns))
            if (time.perf_counter() - started) / at * len(columns) > ANSWER_S:
                return None
    except (InvalidInput, ModelFailed):
        return None
    return join_outputs(parts)


def _table(
    signature: Signature, columns: Columns, truth: NDArray[Any] | None, answers: Outputs | None
) -> pl.DataFrame:
    import polars as pl

    series = [
        pl.Series(_FIELD + field.name, np.ascontiguousarray(values))
        for field, values in zip(signature.numeric, columns.numbers.T, strict=True)
    ]
    for field, texts in zip(signature.textual, columns.texts.T, strict=True):
        series.append(pl.Series(_FIELD + field.name, texts.tolist(), dtype=pl.String))
    for field in signature.tensors:
        tensor = columns.tensors[field.name].astype(_little_endian(field.dtype))
        cells = [row.tobytes() for row in tensor]
        series.append(pl.Series(_FIELD + field.name, cells, dtype=pl.Binary))
    if truth is not None:
        series.append(pl.Series(_TRUTH, truth))
    if answers is not None and answers.values is not None:
        series.append(pl.Series(_VALUE, answers.values))
    elif answers is not None and answers.choices is not None:
        series.append(pl.Series(_CHOICE, answers.choices.astype(np.int64)))
        if answers.probabilities is not None:
            for place, share in enumerate(answers.probabilities.T):
                series.append(pl.Series(f"{_PROBABILITY}{place}", np.ascontiguousarray(share)))
    return pl.DataFrame(series)


def _read(data: bytes) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> IntegrityError:
    return IntegrityError(f"{TRAINING_SAMPLE} cannot be read: {error}.", REGISTER_AGAIN)


def _little_endian(dtype: str | None) -> np.dtype[Any]:
    return np.dtype(dtype or "float64").newbyteorder("<")


def _matrix(columns: list[Any], rows: int, dtype: Any) -> NDArray[Any]:
    matrix = np.empty((rows, len(columns)), dtype=dtype)
    for place, column in enumerate(columns):
        matrix[:, place] = column
    return matrix
