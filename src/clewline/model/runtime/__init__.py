"""Loaded models (predictors and transformers), their outputs, and tables as rows."""

from clewline.model.runtime.outputs import Outputs, Predictor, Transformer

__all__ = ["Outputs", "Predictor", "Transformer"]
