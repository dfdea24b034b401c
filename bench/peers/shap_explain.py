"""Explains rows of the income model with `shap`: prints the seconds and the additivity of each."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import polars as pl
import shap


def main(model_file: str, rows_file: str) -> None:
    """Explain each row alone, as a caller would ask."""
    model = joblib.load(model_file)
    table = pl.DataFrame(json.loads(Path(rows_file).read_bytes()), infer_schema_length=None)
    encoded = model[:-1].transform(table)
    encoded = np.asarray(encoded.todense() if hasattr(encoded, "todense") else encoded)
    explainer = shap.TreeExplainer(model[-1])
    seconds, errors = [], []
    for row in encoded:
        started = time.perf_counter()
        values = explainer.shap_values(row[None], check_additivity=False)
        seconds.append(time.perf_counter() - started)
        total = explainer.expected_value + np.asarray(values)[0].sum(axis=0)
        errors.append(float(np.abs(total - model[-1].predict_proba(row[None])[0]).max()))
    json.dump({"seconds": seconds, "additivity": max(errors)}, sys.stdout)


main(*sys.argv[1:])
