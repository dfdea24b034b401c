"""
The servers beside us, each in an environment of its own with locked versions.

Each serves the income model twice: the scikit-learn pipeline, and the ONNX file
that clewline compiled.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from shared.income import Row, mlserver_tensors
from shared.servers import JSON, Question, Server, free_port

PEERS = Path(__file__).parent.parent / "peers"
ENVIRONMENTS = Path(os.environ.get("CLEWLINE_PEERS", PEERS.parent / ".peers"))
NAMES = ("fastapi", "mlserver", "bentoml", "litserve", "mlflow")

Kind = Literal["sklearn", "onnx"]


def make_environment(name: str) -> Path:
    """Make the environment of a peer, if it is not there; gives its folder of programs."""
    lock = PEERS / f"{name}.txt"
    folder = ENVIRONMENTS / name
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    mark = folder / ".installed"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing {name} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-q", "--require-hashes", "-r", lock], check=True)
        mark.write_text(wanted)
    return folder / "bin"


def server(name: str, kind: Kind, model: Path, rows: list[Row], scratch: Path) -> Server:
    """
    Name the server of a peer, one worker.

    Args:
        name: One of `NAMES`.
        kind: Which form of the model.
        model: The joblib file of scikit-learn, or the package with the ONNX file.
        rows: Complete rows, to be sent one a request.
        scratch: An empty folder for what it needs beside.
    """
    programs = make_environment(name)
    environment = {
        "MODEL_KIND": kind,
        "MODEL_FILE": str(model),
        "PYTHONPATH": str(PEERS),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    make = {
        "fastapi": _fastapi,
        "mlserver": _mlserver,
        "bentoml": _bentoml,
        "litserve": _litserve,
        "mlflow": _mlflow,
    }[name]
    command, question = make(programs, kind, model, rows, scratch, environment)
    return Server(f"{name}, {kind}", command, scratch, question, environment)


Made = tuple[Callable[[int], tuple[str, ...]], Question]


def _rows(rows: list[Row], path: str = "/predict", key: str = "rows") -> Question:
    return Question(path, tuple(_json({key: [row]}) for row in rows), JSON)


def _fastapi(
    programs: Path, kind: Kind, model: Path, rows: list[Row], scratch: Path, env: dict[str, str]
) -> Made:
    words = (str(programs / "uvicorn"), "fastapi_app:app", "--log-level", "error")
    return lambda port: (*words, "--port", str(port)), _rows(rows)


def _bentoml(
    programs: Path, kind: Kind, model: Path, rows: list[Row], scratch: Path, env: dict[str, str]
) -> Made:
    words = (str(programs / "bentoml"), "serve", "bentoml_service:Income", "--host", "127.0.0.1")
    words += ("--working-dir", str(PEERS))
    return lambda port: (*words, "--port", str(port)), _rows(rows)


def _litserve(
    programs: Path, kind: Kind, model: Path, rows: list[Row], scratch: Path, env: dict[str, str]
) -> Made:
    words = (str(programs / "python"), str(PEERS / "litserve_app.py"))
    return lambda port: (*words, str(port)), _rows(rows)


def _mlflow(
    programs: Path, kind: Kind, model: Path, rows: list[Row], scratch: Path, env: dict[str, str]
) -> Made:
    saved = scratch / "saved"
    save = [programs / "python", PEERS / "mlflow_save.py", saved]
    subprocess.run(save, env=os.environ | env, check=True, capture_output=True)
    words = (str(programs / "mlflow"), "models", "serve", "-m", str(saved))
    words += ("--env-manager", "local", "-w", "1")
    question = _rows(rows, "/invocations", "dataframe_records")
    return lambda port: (*words, "-p", str(port)), question


def _mlserver(
    programs: Path, kind: Kind, model: Path, rows: list[Row], scratch: Path, env: dict[str, str]
) -> Made:
    ports = {"grpc_port": free_port(), "metrics_port": free_port()}
    settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1"} | ports
    (scratch / "settings.json").write_text(json.dumps(settings))
    settings = {"name": "income", "implementation": "mlserver_model.Income"}
    more: dict[str, Any] = {}
    if kind == "sklearn":
        settings["implementation"] = "mlserver_sklearn.SKLearnModel"
        settings["parameters"] = {"uri": str(model), "content_type": "pd"}
        more = {"parameters": {"content_type": "pd"}, "outputs": [{"name": "predict_proba"}]}
    (scratch / "model-settings.json").write_text(json.dumps(settings))
    env["GRPC_PORT"] = str(ports["grpc_port"])  # for whoever loads it so
    words = ("env",)
    serve = (str(programs / "mlserver"), "start", str(scratch))
    bodies = tuple(_json({"inputs": mlserver_tensors(row)} | more) for row in rows)
    question = Question("/v2/models/income/infer", bodies, JSON)
    return lambda port: (*words, f"MLSERVER_HTTP_PORT={port}", *serve), question


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
