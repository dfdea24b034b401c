"""The adapter of Python classes of the project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clewline.errors import InvalidInput, ModelFailed, NotSupported
from clewline.flow.code import origin
from clewline.model.families.family import Family, PackageContents, RegistrationInputs
from clewline.model.runtime.frames import ColumnLayout, TableLayout, columns_of, layout_of
from clewline.model.runtime.outputs import FunctionPredictor, Outputs, take_rows
from clewline.model_families import family_of_class
from clewline.signature.field import Field, Signature
from clewline.signature.frame_annotation import Frame

if TYPE_CHECKING:
    from clewline.signature.columns import Columns

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


class PythonClassFamily(Family):
    """A class of the project, or an object of one, that is no estimator of a library."""

    name = "python_class"
    title = "Python"

    def detect(self, model: Any) -> bool:
        """Say whether it is a first-party class with `predict`, or an object of one."""
        cls = model if isinstance(model, type) else type(model)
        if not callable(getattr(cls, "predict", None)) or origin.of_type(cls) != "own":
            return False
        return family_of_class(cls) is None

    def convert(self, model: Any, inputs: RegistrationInputs) -> PackageContents:
        """Package the code and the files, and compare the loaded model with the object."""
        from clewline.model.compile.equivalence import CompiledModel
        from clewline.model.families import packaging
        from clewline.model.families.python_class.as_estimator import input_type
        from clewline.model.families.python_class.package_files import gather_files
        from clewline.model.families.python_class.verification import ROWS, verify

        packaging.require_train(inputs)
        signature = inputs.signature or _inferred(model, inputs)
        train, _, rows, test, notes = packaging.split_rows(signature, inputs)
        frame = input_type(model.predict) or packaging.frame_kind(train)
        layout = _layout(train, packaging.frame_kind(train), signature, frame)
        paths = inputs.options.get("files") or {}
        spec, files = gather_files(
            model,
            files={name: Path(path) for name, path in paths.items()},
            arguments=inputs.options.get("arguments") or {},
            frame=frame,
            layout=layout,
        )
        few = take_rows(rows if test is None else test, slice(0, ROWS))
        wanted = None if isinstance(model, type) else _answers(model, few, signature, frame, layout)
        verified = verify(spec, files, signature, few, wanted)
        signature = packaging.with_probabilities(signature, verified.has_probabilities)
        encoding = {
            "class": spec.name,
            "module": spec.module,
            "frame": spec.frame,
            "files": sorted(spec.files),
            "requirements": spec.requirements,
        }
        compiled = CompiledModel(verified.files, self.name, verified.equality, encoding)
        described = packaging.describing_files(signature, compiled, rows, test)
        evaluated = packaging.LoadedEstimator(
            self.load(verified.files, signature),
            signature,
            lambda table: columns_of(table, signature),
        )
        all_files = verified.files | described
        return PackageContents(all_files, signature, compiled, notes, evaluated=evaluated)

    def load(self, files: Mapping[str, bytes], signature: Signature) -> FunctionPredictor:
        """Load the code and the files that `python.json` names; errors as of `load_python`."""
        from clewline.model.families.python_class.loading import load_python

        return load_python(files, signature)

    def predict(self, model: Any, frame: Any, signature: Signature) -> Outputs:
        """Answer a table or rows by an object."""
        from clewline.model.families.python_class.loading import call_model

        return call_model(model, frame, signature.output, len(frame))

    def as_estimator(self, model: Any, table: Any = None, target: str = "") -> Any:
        """Wrap an object, so that `cl.evaluate` can ask it."""
        from clewline.model.families.python_class.as_estimator import as_estimator

        return model if table is None else as_estimator(model, table, target)

    def describe(self, model: Any) -> dict[str, str]:
        """Return the class."""
        cls = model if isinstance(model, type) else type(model)
        return {"class": f"{cls.__module__}.{cls.__qualname__}"}


def _inferred(model: Any, inputs: RegistrationInputs) -> Signature:
    from clewline.signature.infer import infer_signature

    if inputs.target is None:
        raise InvalidInput(
            "No target is named.", "Pass target=, the column that it predicts, or signature=."
        )
    labels = getattr(model, "classes_", None)
    task = getattr(model, "task", None)
    ordered = None if labels is None else list(labels)
    return infer_signature(inputs.train, target=inputs.target, task=task, labels=ordered)


def _answers(
    model: Any, rows: Columns, signature: Signature, frame: Frame, layout: TableLayout
) -> Outputs:
    from clewline.model.families.python_class.loading import call_model, model_input

    try:
        table = model_input(rows, signature, frame, layout)
        return call_model(model, table, signature.output, len(rows))
    except ModelFailed as error:
        reason = f" ({error.__cause__})" if error.__cause__ else ""
        raise NotSupported(
            f"It cannot be registered: {error.message}{reason}",
            "Fix the class, so that it answers its own training rows.",
        ) from error


def _layout(table: Any, own: Any, signature: Signature, frame: Frame) -> TableLayout:
    """Keep a table's column types, or use plain ones if `predict` takes another library's table."""
    if frame == "rows":
        return layout_of(table, signature, own)
    if frame in ("numpy", own):
        return layout_of(table, signature, frame)
    return TableLayout(frame, {field.name: _plain(field, frame) for field in signature.fields})


def _plain(field: Field, frame: str) -> ColumnLayout:
    polars, pandas = DTYPES[field.kind]
    if frame == "polars":
        return ColumnLayout(polars)
    nullable = field.nullable and field.kind in ("integer", "boolean")
    return ColumnLayout("float64" if nullable else pandas)
