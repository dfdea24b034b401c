"""
What `tritonclient` makes of a running server; run by its own Python, prints JSON.

    triton_client.py HTTP_PORT GRPC_PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException

ROWS = 3
FIELDS = {
    "age": ("INT64", np.array([39, 40, 120])),
    "hours": ("FP64", np.array([40.5, 1.0, 2.0])),
    "job": ("BYTES", np.array([b"nurse", b"smith", b"clerk"], dtype=object)),
}


def inputs(library: Any, **how: Any) -> list[Any]:
    made = []
    for name, (datatype, values) in FIELDS.items():
        tensor = library.InferInput(name, [ROWS], datatype)
        tensor.set_data_from_numpy(values, **how)
        made.append(tensor)
    return made


def plain(result: Any) -> dict[str, Any]:
    labels = [label.decode() for label in result.as_numpy("label").tolist()]
    return {"label": labels, "probabilities": result.as_numpy("probabilities").tolist()}


def refused(call: Callable[[], Any]) -> str:
    try:
        call()
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "answered"


def manage(client: Any) -> dict[str, Any]:
    """Ask for all that is no inference, alike over both."""
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("income", "1"),
    }
    client.unload_model("income")
    found["unloaded"] = client.is_model_ready("income")
    client.load_model("income")
    found["loaded"] = client.is_model_ready("income")
    return found


def http(port: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with over_http.InferenceServerClient(f"127.0.0.1:{port}") as client:
        found |= manage(client)
        found["metadata"] = client.get_model_metadata("income")["inputs"][0]["datatype"]
        found["index"] = client.get_model_repository_index()[0]["state"]
        asked = inputs(over_http)
        result = client.infer("income", asked, request_id="q", timeout=10_000_000)
        found["binary"] = plain(result)
        found["id"] = result.get_response()["id"]
        found["ids"] = result.get_response()["parameters"]["prediction_ids"]
        wanted = [
            over_http.InferRequestedOutput(name, binary_data=False)
            for name in ("label", "probabilities")
        ]
        asked = inputs(over_http, binary_data=False)
        answer = client.infer("income", asked, outputs=wanted, model_version="1").get_response()
        found["json"] = {
            "label": answer["outputs"][0]["data"],
            "probabilities": np.reshape(answer["outputs"][1]["data"], (-1, 2)).tolist(),
        }
        found["gzip"] = plain(
            client.infer("income", inputs(over_http), request_compression_algorithm="gzip")
        )
        found["missing"] = refused(lambda: client.infer("income", asked[:2]))
        found["unknown"] = refused(lambda: client.infer("incom", asked))
    return found


def grpc(port: str) -> dict[str, Any]:
    with over_grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        found = manage(client)
        metadata = client.get_model_metadata("income", as_json=True)
        found["metadata"] = metadata["inputs"][0]["datatype"]
        found["index"] = client.get_model_repository_index(as_json=True)["models"][0]["state"]
        result = client.infer("income", inputs(over_grpc), request_id="q", client_timeout=10)
        found["raw"] = plain(result)
        found["id"] = result.get_response().id
        found["ids"] = result.get_response().parameters["prediction_ids"].string_param
        found["missing"] = refused(lambda: client.infer("income", inputs(over_grpc)[:2]))
        found["unknown"] = refused(lambda: client.infer("incom", inputs(over_grpc)))
    return found


async def aio(http_port: str, grpc_port: str) -> dict[str, Any]:
    async with over_http_aio.InferenceServerClient(f"127.0.0.1:{http_port}") as client:
        several = await asyncio.gather(
            *(client.infer("income", inputs(over_http_aio)) for _ in range(8))
        )
    found = {"http": [plain(each) for each in several]}
    async with over_grpc_aio.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        several = await asyncio.gather(
            *(client.infer("income", inputs(over_grpc_aio)) for _ in range(8))
        )
    return found | {"grpc": [plain(each) for each in several]}


if __name__ == "__main__":
    over = {"http": http(sys.argv[1]), "grpc": grpc(sys.argv[2])}
    print(json.dumps(over | {"aio": asyncio.run(aio(*sys.argv[1:]))}))
