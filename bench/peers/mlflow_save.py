"""Saves the model for `mlflow models serve`. Usage: mlflow_save.py FOLDER"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import mlflow


class Income(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """The ONNX file, row by row: MLflow's own ONNX flavour gives it frames it cannot take."""

    def load_context(self, context: Any) -> None:
        """Load the model."""
        from income_model import load

        self._answer = load()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Answer each row."""
        return [self._answer(row) for row in model_input.to_dict("records")]


if __name__ == "__main__":
    if os.environ["MODEL_KIND"] == "sklearn":
        import joblib

        mlflow.sklearn.save_model(
            joblib.load(os.environ["MODEL_FILE"]),
            sys.argv[1],
            serialization_format="cloudpickle",
            pip_requirements=["scikit-learn"],
        )
    else:
        here = Path(__file__).parent
        mlflow.pyfunc.save_model(
            sys.argv[1],
            python_model=Income(),
            code_paths=[str(here / "income_model.py")],
            pip_requirements=["onnxruntime"],
        )
