"""What a loaded model is: it takes rows, gives outputs, and is closed; and tables as rows."""

from clewline.model.runtime.outputs import Outputs, Predictor, Transformer

__all__ = ["Outputs", "Predictor", "Transformer"]
