"""What executes a model. Kinds register under the entry-point group `fairlead.runtimes`."""

from fairlead.model.runtime.protocol import Outputs, Predictor, Runtime, Transformer

__all__ = ["Outputs", "Predictor", "Runtime", "Transformer"]
