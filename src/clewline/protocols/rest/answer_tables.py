"""Predictions as CSV or Arrow: a row for each, with a column for each value."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from clewline.protocols.rest.content_types import ARROW_TYPE
from clewline.serve.request.predict_request import PredictResponse

PROBABILITY = "probability_"
"""Prefix of a label in the name of its column."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def table_of(answer: PredictResponse, content_type: bytes) -> bytes:
    """
    Write predictions as a table; this takes long, so call it on a thread.

    The columns are id, revision, model, arm (if rows have one), label and a probability for
    each label, or value; set as JSON, or interval_low and interval_high, if the endpoint asks for
    them; and flags as JSON, null if there are none.
    """
    predictions = [_decode(each) for each in answer.predictions]
    columns: dict[str, list[Any]] = {
        "id": [each["id"] for each in predictions],
        "revision": [answer.revision] * len(predictions),
    }
    for name in ("model", "arm", "label", "value"):
        if any(name in each for each in predictions):
            columns[name] = [each.get(name) for each in predictions]
    shares = [each.get("probabilities") or {} for each in predictions]
    for label in dict.fromkeys(label for share in shares for label in share):
        columns[PROBABILITY + label] = [share.get(label) for share in shares]
    if any("set" in each for each in predictions):
        sets = [each.get("set") for each in predictions]
        columns["set"] = [None if s is None else msgspec.json.encode(s).decode() for s in sets]
    if any("interval" in each for each in predictions):
        ends = [each.get("interval") or (None, None) for each in predictions]
        columns["interval_low"], columns["interval_high"] = map(list, zip(*ends, strict=True))
    flags = [each.get("flags") for each in predictions]
    columns["flags"] = [msgspec.json.encode(each).decode() if each else None for each in flags]
    if content_type != ARROW_TYPE:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(
                msgspec.json.encode(value).decode() if isinstance(value, bool | list) else value
                for value in row
            )
        return text.getvalue().encode()
    import polars as pl

    strings = ("id", "revision", "model", "arm", "set", "flags")
    series = [
        pl.Series(name, values, pl.String if name in strings else None, strict=False)
        for name, values in columns.items()
    ]
    written = io.BytesIO()
    # Not every Arrow library reads string views yet.
    pl.DataFrame(series).write_ipc_stream(written, compat_level=pl.CompatLevel.oldest())
    return written.getvalue()
