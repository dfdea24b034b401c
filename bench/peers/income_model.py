"""
The income model as every peer serves it: `answer(row)` with the model that MODEL_KIND names.

`sklearn`: the pipeline itself, from the joblib file MODEL_FILE. `onnx`: the file that
clewline compiled, from the package MODEL_FILE, coded as a good engineer would by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Answer = dict[str, Any]


def load() -> Callable[[Row], Answer]:
    """Load the model that the environment names."""
    path = Path(os.environ["MODEL_FILE"])
    return {"sklearn": _sklearn, "onnx": _onnx}[os.environ["MODEL_KIND"]](path)


def _sklearn(path: Path) -> Callable[[Row], Answer]:
    import joblib
    import polars as pl

    model = joblib.load(path)
    labels = model.classes_.tolist()

    def answer(row: Row) -> Answer:
        shares = model.predict_proba(pl.DataFrame([row]))[0]
        return _named(labels, int(shares.argmax()), shares)

    return answer


def _onnx(package: Path) -> Callable[[Row], Answer]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        (package / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    stated = json.loads(session.get_modelmeta().custom_metadata_map["clewline.encoding"])
    numbers = stated["numbers"]
    codes = [
        (text["field"], {level: code for code, level in enumerate([*text["levels"], None])})
        for text in stated["codes"]
    ]
    labels = json.loads((package / "signature.json").read_bytes())["output"]["labels"]
    nan = float("nan")

    def answer(row: Row) -> Answer:
        values = [nan if row[name] is None else row[name] for name in numbers]
        coded = [levels.get(row[name], len(levels)) for name, levels in codes]
        feed = {"numbers": np.array([values], np.float64), "codes": np.array(coded, np.int64)}
        choices, probabilities = session.run(["choices", "probabilities"], feed)
        return _named(labels, int(choices[0]), probabilities[0])

    return answer


def _named(labels: list[str], choice: int, shares: Any) -> Answer:
    pairs = zip(labels, shares.tolist(), strict=True)
    return {"label": labels[choice], "probabilities": dict(pairs)}
