"""The adapter of Python classes of the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clewline.flow.code import origin
from clewline.model.families.family import Family, PackageContents, RegistrationInputs
from clewline.model.runtime.outputs import FunctionPredictor, Outputs
from clewline.model_families import family_of_class
from clewline.signature.field import Signature

if TYPE_CHECKING:
    pass


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
        from clewline.model.families.python_class.registration import convert_python

        return convert_python(model, inputs)

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
