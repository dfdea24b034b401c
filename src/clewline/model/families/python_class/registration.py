"""Registering a Python model: its package is loaded, and compared with the registered object."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from clewline.errors import InvalidInput, ModelFailed, NotSupported
from clewline.model.compile.equivalence import (
    CompiledModel,
    EquivalenceRecord,
    batch_record,
    difference,
    same_bits,
)
from clewline.model.families import packaging
from clewline.model.families.family import PackageContents, RegistrationInputs
from clewline.model.families.python_class.as_estimator import input_type
from clewline.model.families.python_class.loading import call_model, load_python, model_input
from clewline.model.families.python_class.package_files import gather_files
from clewline.model.families.python_class.spec import PythonSpec, with_spec
from clewline.model.isolation.isolated_predictor import IsolatedPredictor, load_isolated
from clewline.model.runtime.frames import ColumnLayout, TableLayout, columns_of, layout_of
from clewline.model.runtime.outputs import (
    Outputs,
    join_outputs,
    predict_in_batches,
    take_rows,
)
from clewline.signature.columns import Columns
from clewline.signature.field import Signature
from clewline.signature.infer import infer_signature

DTYPES = {
    "number": ("Float64", "float64"),
    "integer": ("Int64", "int64"),
    "boolean": ("Boolean", "bool"),
    "category": ("String", "object"),
    "text": ("String", "object"),
    "datetime": ("Datetime(time_unit='us', time_zone='UTC')", "datetime64[us, UTC]"),
    "tensor": ("List", "object"),
}
"""Kind of a field → the column type of Polars and of pandas."""

ROWS = 200
"""Rows of the test table that are asked; a Python model may take long for each."""

CALLS = 8
"""At each batch size when bits are compared."""

ALONE = 20
"""Rows that are asked twice, one to a call."""


def convert_python(model: Any, inputs: RegistrationInputs) -> PackageContents:
    """Package the code and the files, and compare the loaded model with the object."""
    packaging.require_train(inputs)
    if (signature := inputs.signature) is None:
        if inputs.target is None:
            raise InvalidInput(
                "No target is named.", "Pass target=, the column that it predicts, or signature=."
            )
        labels = getattr(model, "classes_", None)
        signature = infer_signature(
            inputs.train,
            target=inputs.target,
            task=getattr(model, "task", None),
            labels=None if labels is None else list(labels),
        )
    train, _, rows, test, notes = packaging.split_rows(signature, inputs)
    own = packaging.frame_kind(train)
    frame = input_type(model.predict) or own
    if frame == "rows":
        layout = layout_of(train, signature, own)
    elif frame in ("numpy", own):
        layout = layout_of(train, signature, frame)
    else:  # `predict` takes another library's table: plain types stand for those of this one
        columns = {}
        for field in signature.fields:
            polars, pandas = DTYPES[field.kind]
            nullable = field.nullable and field.kind in ("integer", "boolean")
            dtype = polars if frame == "polars" else "float64" if nullable else pandas
            columns[field.name] = ColumnLayout(dtype)
        layout = TableLayout(frame, columns)
    paths = inputs.options.get("files") or {}
    spec, files = gather_files(
        model,
        files={name: Path(path) for name, path in paths.items()},
        arguments=inputs.options.get("arguments") or {},
        frame=frame,
        layout=layout,
    )
    few, wanted = take_rows(rows if test is None else test, slice(0, ROWS)), None
    if not isinstance(model, type):
        try:
            table = model_input(few, signature, frame, layout)
            wanted = call_model(model, table, signature.output, len(few))
        except ModelFailed as error:
            reason = f" ({error.__cause__})" if error.__cause__ else ""
            raise NotSupported(
                f"It cannot be registered: {error.message}{reason}",
                "Fix the class, so that it answers its own training rows.",
            ) from error
    files, equality, has_probabilities = verify(spec, files, signature, few, wanted)
    signature = packaging.with_probabilities(signature, has_probabilities)
    encoding = {
        "class": spec.name,
        "module": spec.module,
        "frame": spec.frame,
        "files": sorted(spec.files),
        "requirements": spec.requirements,
    }
    compiled = CompiledModel(files, "python_class", equality, encoding)
    described = packaging.describing_files(signature, compiled, rows, test, inputs)
    evaluated = packaging.LoadedEstimator(
        load_python(files, signature), signature, lambda table: columns_of(table, signature)
    )
    return PackageContents(files | described, signature, compiled, notes, evaluated=evaluated)


def verify(
    spec: PythonSpec,
    files: dict[str, bytes],
    signature: Signature,
    rows: Columns,
    wanted: Outputs | None,
) -> tuple[dict[str, bytes], EquivalenceRecord, bool]:
    """
    Load a package in this process and in one of its own, and compare what they answer.

    Args:
        spec: Of the package.
        files: That it names.
        signature: Of the model.
        rows: Up to `ROWS` rows of the test table.
        wanted: What the registered object answered to them; None if a class was registered.

    Returns:
        The files of the model as it will be served, the record of the comparison, and
        whether it gives probabilities.

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
    return with_spec(final, files), equality, found.probabilities is not None


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
