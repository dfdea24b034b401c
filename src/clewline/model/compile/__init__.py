"""Models in the form that is served: compiled to ONNX and held equal, or as they are."""

from clewline.model.compile.compiler import compile
from clewline.model.compile.result import Attempt, Compiled, Equality

__all__ = ["Attempt", "Compiled", "Equality", "compile"]
