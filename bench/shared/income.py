"""The income example, trained and applied, and its rows as callers of each protocol send them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

from shared.demo import CLEWLINE, clewline
from shared.servers import Question, Server

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "income"
DATA = Path(os.environ.get("CLEWLINE_DATA", EXAMPLE.parent.parent.parent / "shared" / "data"))
NATIVE = "/v1/endpoints/income/predict"
OIP = "/v2/models/income/infer"
ROWS = 1000

Row = dict[str, Any]


def make_project(root: Path) -> Path:
    """Train, promote and apply the example on Adult."""
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns(".clewline"))
    clewline("init", "--template", "empty", str(root), cwd=root.parent)
    clewline("run", "income", f"data={DATA / 'adult'}", cwd=root)
    clewline("models", "promote", "income@1", "champion", cwd=root)
    clewline("endpoints", "apply", "income", cwd=root)
    return root


def package(project: Path) -> Path:
    """Find the package that the live revision serves."""
    live = json.loads(clewline("endpoints", "show", "income", "--json", cwd=project))["live"]
    name, _, number = live["models"]["model"].partition("@")
    return project / ".clewline" / "models" / name / number


def save_sklearn(target: Path) -> None:
    """Train the same pipeline and write it as joblib, as the other servers load it."""
    import joblib

    sys.path.insert(0, str(EXAMPLE / "pipelines"))
    from income import TARGET, forest, parse

    train = parse(DATA / "adult" / "adult.data.gz")
    joblib.dump(forest(trees=100, seed=0).fit(train.drop(TARGET), train[TARGET]), target)


def sample(count: int = ROWS, *, whole: bool = False) -> list[Row]:
    """Read rows of the test table as a caller sends them; `whole` ones have no nulls."""
    sys.path.insert(0, str(EXAMPLE / "pipelines"))
    from income import TARGET, parse

    table = parse(DATA / "adult" / "adult.test.gz").drop(TARGET)
    rows: list[Row] = (table.drop_nulls() if whole else table).head(count).to_dicts()
    return rows


def native(rows: list[Row], *, each: int = 1) -> Question:
    """Ask our own REST for `each` rows at a time."""
    groups = [rows[start : start + each] for start in range(0, len(rows), each)]
    return Question(NATIVE, tuple(_json({"rows": group}) for group in groups))


def oip_json(rows: list[Row], *, path: str = OIP, **more: Any) -> Question:
    """Ask by the Open Inference Protocol in JSON: one tensor a field."""
    return Question(path, tuple(_json({"inputs": _tensors(row)} | more) for row in rows))


def oip_binary(rows: list[Row]) -> list[Question]:
    """Ask with binary tensors; a question for each length of header, as it is a header of HTTP."""
    by_length: dict[int, list[bytes]] = {}
    for row in rows:
        inputs, raw = [], b""
        for tensor in _tensors(row):
            data = _raw(tensor)
            inputs.append(
                {key: tensor[key] for key in ("name", "shape", "datatype")}
                | {"parameters": {"binary_data_size": len(data)}}
            )
            raw += data
        head = _json({"inputs": inputs, "parameters": {"binary_data_output": True}})
        by_length.setdefault(len(head), []).append(head + raw)
    return [
        Question(
            OIP,
            tuple(bodies),
            {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(length),
            },
        )
        for length, bodies in by_length.items()
    ]


def mlserver_tensors(row: Row) -> list[dict[str, Any]]:
    """Write a row as MLServer's pandas codec reads it: numbers are FP64."""
    return [
        tensor | {"parameters": {"content_type": "str"}}
        if tensor["datatype"] == "BYTES"
        else tensor | {"datatype": "FP64", "data": [float(tensor["data"][0])]}
        for tensor in _tensors(row)
    ]


def ours(project: Path, *options: str, question: Question | None = None) -> Server:
    """Name our server of the project."""
    return Server(
        "clewline",
        lambda port: (*CLEWLINE, "serve", "income", "--port", str(port), *options),
        project,
        question or native(sample(1)),
    )


def _tensors(row: Row) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": [1],
            "datatype": "INT64" if isinstance(value, int) else "BYTES",
            "data": [value],
        }
        for name, value in row.items()
    ]


def _raw(tensor: dict[str, Any]) -> bytes:
    (value,) = tensor["data"]
    if tensor["datatype"] == "INT64":
        return struct.pack("<q", value)
    text = value.encode()
    return struct.pack("<I", len(text)) + text


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
