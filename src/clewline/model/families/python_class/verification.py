"""Comparing a packaged Python model with the object that was registered, and with itself."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import msgspec

from clewline.errors import ModelFailed, NotSupported
from clewline.model.compile.equivalence import (
    EquivalenceRecord,
    batch_record,
    difference,
    same_bits,
)
from clewline.model.families.python_class.loading import load_python
from clewline.model.families.python_class.package_files import with_spec
from clewline.model.families.python_class.spec import PythonSpec
from clewline.model.isolation.isolated_predictor import IsolatedPredictor, load_isolated
from clewline.model.runtime.outputs import (
    Outputs,
    join_outputs,
    predict_in_batches,
    take_rows,
)
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ROWS = 200
"""Rows of the test table that are asked; a Python model may take long for each."""

CALLS = 8
"""At each batch size when bits are compared."""

ALONE = 20
"""Rows that are asked twice, one to a call."""


@dataclass(frozen=True, slots=True)
class VerifiedPackage:
    """A packaged model as it will be served, and what is known of it."""

    files: dict[str, bytes]
    equality: EquivalenceRecord
    has_probabilities: bool


def verify(
    spec: PythonSpec,
    files: dict[str, bytes],
    signature: Signature,
    rows: Columns,
    wanted: Outputs | None,
) -> VerifiedPackage:
    """
    Load a package in this process and in one of its own, and compare what they answer.

    Args:
        spec: Of the package.
        files: That it names.
        signature: Of the model.
        rows: Up to `ROWS` rows of the test table.
        wanted: What the registered object answered to them; None if a class was registered.

    Raises:
        NotSupported: The loaded model does not answer as the object did, or works only
            where it was registered.
    """
    here = load_python(with_spec(spec, files), signature)
    try:
        found = here.predict(rows)
        few = take_rows(rows, slice(0, ALONE))
        first, second = (
            join_outputs(
                [here.predict(take_rows(few, slice(at, at + 1))) for at in range(len(few))]
            )
            for _ in range(2)
        )
        is_steady = first.to_bytes() == second.to_bytes()
        size = None if is_steady and same_bits(here.predict, rows, CALLS) else 1
        served = predict_in_batches(here.predict, rows, size)
    finally:
        here.close()
    apart = difference(wanted, found) if is_steady and wanted is not None else None
    if apart is not None and apart.reason:
        raise NotSupported(
            f"{spec.name}, made again from its package, does not answer as the object that was "
            f"registered: {apart.reason}.",
            "Write what it learned to a file, read that file in the constructor, and pass "
            "files={…}.",
        )
    final = msgspec.structs.replace(spec, rows_per_call=size, deterministic=is_steady)
    elsewhere = _answers_elsewhere(final, files, signature, rows)
    if is_steady and difference(served, elsewhere).identical < len(rows):
        final = msgspec.structs.replace(final, rows_per_call=1, deterministic=False)
    steadiness = "" if final.deterministic else ", not deterministic: replay will differ"
    equality = EquivalenceRecord(
        verified=False,
        form=final.name,
        reason=f"a Python class{steadiness}",
        rows=len(rows),
        synthetic_rows=0,
        flips=apart.flips if apart else 0,
        max_difference=apart.largest if apart else 0.0,
        identical_rows=apart.identical if apart else 0,
        **batch_record(len(rows), CALLS, final.rows_per_call),
        versions={"numpy": version("numpy")} | final.requirements,
    )
    has_probabilities = found.probabilities is not None
    return VerifiedPackage(with_spec(final, files), equality, has_probabilities)


def _answers_elsewhere(
    spec: PythonSpec, files: dict[str, bytes], signature: Signature, rows: Columns
) -> Outputs:
    """Answer the rows in a new process: other folder, other environment, other hash seed."""
    try:
        away = load_isolated(spec.name, "python_class", signature, lambda: with_spec(spec, files))
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
