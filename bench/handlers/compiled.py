"""
The bare handler around the file that clewline compiled: the same HTTP, another model.

It tells what of our speed is the compiled model and what is the server.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson

HEADERS = [("content-type", "application/json")]

_package = Path(os.environ["BARE_PACKAGE"])
_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = 1
_session = onnxruntime.InferenceSession(
    (_package / "model.onnx").read_bytes(), _options, providers=["CPUExecutionProvider"]
)
_stated = json.loads(_session.get_modelmeta().custom_metadata_map["clewline.encoding"])
_numbers = _stated["numbers"]
_codes = [
    (text["field"], {level: code for code, level in enumerate([*text["levels"], None])})
    for text in _stated["codes"]
]
_labels = json.loads((_package / "signature.json").read_bytes())["output"]["labels"]
_nan = float("nan")


async def app(scope: Any, protocol: Any) -> None:
    """Answer one row."""
    row = orjson.loads(await protocol())["rows"][0]
    numbers = [_nan if row[name] is None else row[name] for name in _numbers]
    codes = [levels.get(row[name], len(levels)) for name, levels in _codes]
    choices, probabilities = _session.run(
        ["choices", "probabilities"],
        {"numbers": np.array([numbers], np.float64), "codes": np.array(codes, np.int64)},
    )
    answer = {
        "label": _labels[choices[0]],
        "probabilities": dict(zip(_labels, probabilities[0].tolist(), strict=True)),
    }
    protocol.response_bytes(200, HEADERS, orjson.dumps(answer))
