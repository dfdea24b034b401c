"""Models in the form that is served: compiled to ONNX and held equal, or as they are."""

from fairlead.model.compile.compiler import compile
from fairlead.model.compile.result import Attempt, Compiled, Equality

__all__ = ["Attempt", "Compiled", "Equality", "compile"]
