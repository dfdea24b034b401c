"""
The bare handler: Granian RSGI, orjson and the exact ONNX model, a row at a time.

What a good engineer writes by hand in a day, without clewline: no checks, no ids, no
log, no metrics. The model is skl2onnx's conversion in the file PLAIN_MODEL.
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

_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = 1
_session = onnxruntime.InferenceSession(
    Path(os.environ["PLAIN_MODEL"]).read_bytes(), _options, providers=["CPUExecutionProvider"]
)
_facts = _session.get_modelmeta().custom_metadata_map
_fills = json.loads(_facts["fills"])
_labels = json.loads(_facts["labels"])
_fields = json.loads(_facts["fields"])
_numbers = [(name, name.replace("-", "_")) for name in _fields if name not in _fills]
_texts = [(name, name.replace("-", "_"), fill) for name, fill in _fills.items()]


async def app(scope: Any, protocol: Any) -> None:
    """Answer one row."""
    row = orjson.loads(await protocol())["rows"][0]
    feed = {key: np.array([[row[name]]], np.float64) for name, key in _numbers}
    for name, key, fill in _texts:
        feed[key] = np.array([[row[name] or fill]], object)
    choices, probabilities = _session.run(None, feed)
    answer = {
        "label": choices[0],
        "probabilities": dict(zip(_labels, probabilities[0].tolist(), strict=True)),
    }
    protocol.response_bytes(200, HEADERS, orjson.dumps(answer))
