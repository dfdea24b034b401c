"""What compiling a model gives: files, the runtime that loads them, and the record of equality."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A form that was tried and not served, and why."""

    form: str
    reason: str


class Equality(msgspec.Struct, frozen=True, kw_only=True):
    """
    How the served form was held against the original estimator.

    `held` means: on all `rows` + `made_rows` no label differed and no number by
    more than `tolerance`. It is a statement about those rows, not a proof.
    """

    held: bool
    form: str  # "folded trees", "lowered, then skl2onnx", or the library that answers
    by: str = "ONNX"  # what executes the form, where it is held
    reason: str | None = None  # why none, when the library's own runtime serves
    rows: int  # of the test table
    made_rows: int
    made: dict[str, int] = {}  # kind of made row → how many
    split_thresholds: int = 0  # distinct ones in the model's raw fields
    split_thresholds_tried: int = 0  # of those, with rows at ± 1 ulp
    flips: int = 0  # rows whose label differed
    max_difference: float = 0.0  # of a probability, or of a value relative to the largest
    identical_rows: int = 0  # rows whose every number has the same bits
    tolerance: float = 1e-6
    batch_sizes: tuple[int, ...] = ()  # at which rows gave the same bits as all at once
    rows_in_batches: tuple[int, ...] = ()  # how many rows were compared so, at each size
    rows_per_call: int | None = None  # 1 when they did not: the model is called a row at a time
    rows_one_by_one: int = 0  # of the rows, held once more in such calls
    attempts: tuple[Attempt, ...] = ()  # forms tried before
    versions: dict[str, str] = {}

    @property
    def sentence(self) -> str:
        """
        One line for a person.

        >>> record = Equality(held=False, form="scikit-learn", reason="why", rows=9, made_rows=0)
        >>> record.sentence
        'served by scikit-learn itself: why'
        """
        if not self.held:
            return f"served by {self.form} itself: {self.reason}"
        total = self.rows + self.made_rows
        most = self.max_difference
        apart = (
            f"no label differs, no number by more than {most:.2g}" if most else "nothing differs"
        )
        rows = f"{total:,} rows ({self.rows:,} of the test table, {self.made_rows:,} made)"
        return f"{self.by} ({self.form}) held equal on {rows}: {apart}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A model in the form that will be served."""

    files: dict[str, bytes]  # such as model.onnx, or model.skops and frame.json
    runtime: str  # a name in the entry-point group clewline.runtimes
    equality: Equality
    encoding: dict[str, Any] = field(default_factory=dict)  # how fields become model inputs, JSON
