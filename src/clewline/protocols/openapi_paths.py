"""The routes of other people's protocols, as the document of the server names them."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_OIP = "Open Inference Protocol"
_MLFLOW = "MLflow"


def oip() -> Schema:
    """Name the routes of the Open Inference Protocol; its own document describes the bodies."""
    model = "/v2/models/{name}"
    version = f"{model}/versions/{{version}}"
    paths: Schema = {
        "/v2": _named(_OIP, "get", "The server."),
        "/v2/health/live": _named(_OIP, "get", "The process is alive."),
        "/v2/health/ready": _named(_OIP, "get", "The server is ready."),
        "/v2/repository/index": _named(_OIP, "post", "The models."),
    }
    for path in (model, version):
        paths[path] = _named(_OIP, "get", "One model: its tensors.", path)
        paths[f"{path}/ready"] = _named(_OIP, "get", "Whether a model is ready.", path)
        paths[f"{path}/infer"] = _named(_OIP, "post", "Predict with tensors.", path)
    for verb in ("load", "unload"):
        path = f"/v2/repository/models/{{name}}/{verb}"
        paths[path] = _named(_OIP, "post", f"{verb.capitalize()} a model.", path)
    return paths


def mlflow() -> Schema:
    """Name the routes of MLflow's scoring protocol."""
    paths: Schema = {}
    for head in ("", "/mlflow/{name}"):
        paths[f"{head}/invocations"] = _named(_MLFLOW, "post", "Predict.", head)
        for verb in ("ping", "health", "version"):
            paths[f"{head}/{verb}"] = _named(_MLFLOW, "get", f"MLflow's {verb}.", head)
    return paths


def _named(tag: str, method: str, summary: str, path: str = "") -> Schema:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in ("name", "version")
        if f"{{{name}}}" in path
    ]
    operation: Schema = {
        "tags": [tag],
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": summary},
            "default": {"description": "An error, in the protocol's own shape."},
        },
    }
    if method == "post":
        operation["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
    return {method: operation}
