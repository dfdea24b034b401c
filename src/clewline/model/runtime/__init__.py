"""What executes a model. Kinds register under the entry-point group `clewline.runtimes`."""

from clewline.model.runtime.outputs import Outputs, Predictor, Runtime, Transformer

__all__ = ["Outputs", "Predictor", "Runtime", "Transformer"]
