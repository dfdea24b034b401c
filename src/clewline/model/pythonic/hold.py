"""Holding a packaged Python model against the object that was registered, and against itself."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import msgspec

from clewline.errors import ModelFailed, NotSupported
from clewline.model.compile.hold import (
    BATCH_SIZES,
    Difference,
    difference,
    in_batches,
    in_each,
    same_bits,
)
from clewline.model.compile.result import Equality
from clewline.model.isolation.isolated_predictor import IsolatedPredictor, load_isolated
from clewline.model.pythonic.gather import encoded
from clewline.model.runtime.outputs import Outputs, Predictor, join_outputs, take_rows
from clewline.model.runtime.python import PythonPredictor, PythonRuntime
from clewline.model.runtime.python_spec import Spec
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ROWS = 200
"""Of the test table that are asked; a Python model may take long for each."""

CALLS = 8
"""At each batch size when bits are compared."""

ALONE = 20
"""Rows that are asked twice, one to a call."""


@dataclass(frozen=True, slots=True)
class Held:
    """A packaged model as it will be served, and what is known of it."""

    files: dict[str, bytes]
    equality: Equality
    scores: bool  # whether it gives probabilities


def hold(
    spec: Spec,
    files: dict[str, bytes],
    signature: Signature,
    rows: Columns,
    wanted: Outputs | None,
) -> Held:
    """
    Load a package in this process and in one of its own, and compare what they answer.

    Args:
        spec: As gathered.
        files: That it names.
        signature: Of the model.
        rows: Up to `ROWS` rows of the test table.
        wanted: What the registered object answered to them; None where a class was given.

    Raises:
        NotSupported: What is loaded does not answer as the object did, or works only
            where it was registered.
    """
    here = _loaded(encoded(spec, files), signature)
    try:
        found = here.predict(rows)
        steady = _is_steady(here, rows)
        size = None if steady and same_bits(here, rows, CALLS) else 1
        served = found if size is None else in_batches(here, rows, 1)
    finally:
        here.close()
    apart = _compared(spec, wanted, found) if steady and wanted is not None else None
    final = msgspec.structs.replace(spec, rows_per_call=size, deterministic=steady)
    elsewhere = _elsewhere(final, files, signature, rows)
    if steady and difference(served, elsewhere).identical < len(rows):
        final = msgspec.structs.replace(final, rows_per_call=1, deterministic=False)
    equality = _record(final, len(rows), apart)
    return Held(encoded(final, files), equality, found.probabilities is not None)


def _loaded(files: dict[str, bytes], signature: Signature) -> PythonPredictor:
    return PythonRuntime().load(files, signature)


def _is_steady(predictor: Predictor, rows: Columns) -> bool:
    """Whether each of some rows, asked alone, gives the same bits twice."""
    few = range(min(len(rows), ALONE))
    first, again = (
        join_outputs([predictor.predict(take_rows(rows, slice(at, at + 1))) for at in few])
        for _ in range(2)
    )
    return difference(first, again).identical == len(few)


def _compared(spec: Spec, wanted: Outputs, found: Outputs) -> Difference:
    apart = difference(wanted, found)
    if apart.reason:
        raise NotSupported(
            f"{spec.name}, made again from its package, does not answer as the object that was "
            f"registered: {apart.reason}.",
            "What it learned belongs into a file: write it there, read it in the constructor, and "
            "pass files={…}.",
        )
    return apart


def _elsewhere(spec: Spec, files: dict[str, bytes], signature: Signature, rows: Columns) -> Outputs:
    """Answer the rows in a new process: other folder, other environment, other hash seed."""
    try:
        away = load_isolated(spec.name, "python", signature, lambda: encoded(spec, files))
    except ModelFailed as error:
        raise NotSupported(
            f"{spec.name} works only where it was registered: {error.message}",
            "Declare the files that it reads with files=, and read no environment variables.",
        ) from error
    assert isinstance(away, IsolatedPredictor), "its task is no transform"
    try:
        return away.predict(rows)
    finally:
        away.close()


def _record(spec: Spec, rows: int, apart: Difference | None) -> Equality:
    whole = spec.rows_per_call is None
    return Equality(
        held=False,
        form=spec.name,
        reason=_reason(spec),
        rows=rows,
        made_rows=0,
        flips=apart.flips if apart else 0,
        max_difference=apart.largest if apart else 0.0,
        identical_rows=apart.identical if apart else 0,
        batch_sizes=BATCH_SIZES if whole else (),
        rows_in_batches=in_each(rows, CALLS) if whole else (),
        rows_per_call=spec.rows_per_call,
        versions={"numpy": version("numpy")} | spec.requirements,
    )


def _reason(spec: Spec) -> str:
    if not spec.deterministic:
        return "a Python class, not deterministic: replay will differ"
    return "a Python class"
