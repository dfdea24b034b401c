"""Finds anchors of the income model with Alibi: prints each rule, with its seconds and rows."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import polars as pl
from alibi.explainers import AnchorTabular

CONDITION = re.compile(r"(?:(-?[\d.]+) <=? )?([\w-]+) (<=|>|<|>=) (-?[\d.]+)")


def main(model_file: str, train_file: str, rows_file: str) -> None:
    """Explain each row alone, with the settings that Alibi has by default."""
    model = joblib.load(model_file)
    train = pl.DataFrame(json.loads(Path(train_file).read_bytes()), infer_schema_length=None)
    rows = pl.DataFrame(json.loads(Path(rows_file).read_bytes()), schema=train.schema)
    texts = [name for name in train.columns if train[name].dtype == pl.String]
    levels = {
        name: pl.concat([train[name], rows[name]]).unique(maintain_order=True).to_list()
        for name in texts
    }
    codes = {name: {level: at for at, level in enumerate(levels[name])} for name in texts}

    def encode(table: pl.DataFrame) -> np.ndarray:
        return np.column_stack(
            [
                [codes[name][value] for value in table[name].to_list()]
                if name in codes
                else table[name].to_numpy()
                for name in table.columns
            ]
        ).astype(np.float64)

    asked = {"calls": 0, "rows": 0}

    def predict(encoded: np.ndarray) -> np.ndarray:
        asked["calls"] += 1
        asked["rows"] += len(encoded)
        columns = {}
        for at, name in enumerate(train.columns):
            if name in levels:
                texts = [levels[name][int(code)] for code in encoded[:, at]]
                columns[name] = pl.Series(texts, dtype=pl.String)
            else:
                columns[name] = encoded[:, at].astype(np.int64)
        return model.predict_proba(pl.DataFrame(columns))

    places = {
        at: [str(level) for level in levels[name]]
        for at, name in enumerate(train.columns)
        if name in levels
    }
    explainer = AnchorTabular(predict, list(train.columns), categorical_names=places, seed=0)
    explainer.fit(encode(train))
    found = []
    for row in encode(rows):
        np.random.seed(0)
        asked.update(calls=0, rows=0)
        started = time.perf_counter(), time.process_time()
        answer = explainer.explain(row)
        spent = time.perf_counter() - started[0], time.process_time() - started[1]
        conditions = [read(said, levels) for said in answer.data["anchor"]]
        found.append(
            {"conditions": conditions, "seconds": spent[0], "cpu": spent[1], **asked,
             "precision": float(np.ravel(answer.data["precision"] or [0])[0])}
        )  # fmt: skip
    json.dump(found, sys.stdout)


def read(said: str, levels: dict[str, list[str | None]]) -> dict[str, object]:
    """Read a condition that Alibi writes as text."""
    name, _, level = said.partition(" = ")
    if name in levels:
        return {"field": name, "value": None if level == "None" else level}
    low, name, sign, high = CONDITION.fullmatch(said).groups()
    assert sign in ("<=", ">"), said
    if sign == ">":
        return {"field": name, "above": float(high)}
    found = {"field": name, "at_most": float(high)}
    return found if low is None else found | {"above": float(low)}


main(*sys.argv[1:])
