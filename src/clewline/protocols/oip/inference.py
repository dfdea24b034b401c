"""One request to infer over REST: its steps, its answer, and its errors in the protocol's shape."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from clewline.errors import ClewlineError
from clewline.protocols.http.error_responses import error_response
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.http.request_headers import run_at_once_or_on_thread, when_read
from clewline.protocols.oip import infer_request, infer_response, model_metadata
from clewline.protocols.oip.body_format import OIP, OIP_BINARY
from clewline.protocols.oip.infer_request import InferOptions
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest, PredictResponse
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision
from clewline.signature.field import Output

HEADER_LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
LARGE_BYTES = 128 << 10
"""The options of a larger request are read on a thread; below, it takes under a millisecond."""
_encode = msgspec.json.encode


class Inference:
    """One request to infer. Each method gets the result of the step before it, or its error."""

    __slots__ = ("endpoint", "options", "output", "predict_request", "request", "server", "version")

    options: InferOptions
    output: Output
    predict_request: PredictRequest

    def __init__(
        self, server: EndpointServer, endpoint: ServedEndpoint, version: str, request: HttpRequest
    ) -> None:
        self.server, self.endpoint, self.version, self.request = server, endpoint, version, request

    def start(self) -> None:
        """Read the request, and answer it, now or later."""
        length = self.request.headers.get(HEADER_LENGTH)
        format, detail = OIP, ""
        if length is not None:
            format, detail = OIP_BINARY, length.strip().decode("latin-1")
        when_read(self.request, self.server.threads, self.begin, format, detail)

    def begin(self, read: PredictRequest | ClewlineError) -> None:
        if isinstance(read, ClewlineError):
            self.fail(read)
            return
        self.predict_request = read
        if self.endpoint.serving is None:
            self.server.when_loaded(self.endpoint, self.ask)
        else:
            self.ask(self.endpoint.serving)

    def ask(self, serving: ServedRevision | ClewlineError) -> None:
        if isinstance(serving, ClewlineError):
            self.fail(serving)
            return
        self.output = serving.loaded.signature.output
        takes_long = len(self.predict_request.body) > LARGE_BYTES
        run_at_once_or_on_thread(
            self.server.threads, self.read_options, self.predict, takes_long=takes_long
        )

    def read_options(self) -> InferOptions:
        model_metadata.check_version(self.endpoint, self.version)
        predict_request, length = self.predict_request, None
        if predict_request.format == OIP_BINARY:
            length = infer_request.json_length(predict_request.detail, predict_request.body)
        options = infer_request.decode_options(predict_request.body, length)
        infer_response.check_outputs(options, self.output)
        infer_response.apply_parameters(predict_request, options)
        return options

    def predict(self, options: InferOptions | ClewlineError) -> None:
        if isinstance(options, ClewlineError):
            self.fail(options)
            return
        self.options = options
        predict(self.server, self.endpoint, self.predict_request, self.answer)

    def answer(self, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, ClewlineError):
            self.fail(result)
            return
        rows = len(result.predictions)
        self.request.rows, self.request.first_id = rows, result.first_id
        run_at_once_or_on_thread(
            self.server.threads,
            partial(_write, self.endpoint.name, self.options, self.output, result),
            self.send,
            takes_long=rows > infer_response.LARGE_ROWS,
        )

    def send(self, response: HttpResponse | ClewlineError) -> None:
        if isinstance(response, ClewlineError):
            self.fail(response)
        else:
            self.request.answer(response)

    def fail(self, error: ClewlineError) -> None:
        self.request.answer(as_oip_error(error_response(error)))


def _write(
    name: str, options: InferOptions, output: Output, result: PredictResponse
) -> HttpResponse:
    """Write an answer: JSON, and behind it the tensors that were wanted raw."""
    answer = infer_response.infer_response(result, output, options)
    outputs, raws = [], []
    for tensor in answer.tensors:
        described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype}
        described["shape"] = tensor.shape
        if _is_wanted_raw(options, tensor.name):
            raws.append(tensor.raw())
            described["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            described["data"] = tensor.elements
        outputs.append(described)
    content: dict[str, Any] = {"model_name": name, "model_version": answer.model_version}
    if options.id is not None:
        content["id"] = options.id
    body = _encode(content | {"parameters": answer.parameters, "outputs": outputs})
    if not raws:
        return HttpResponse(200, body)
    length = (HEADER_LENGTH, b"%d" % len(body))
    return HttpResponse(200, b"".join([body, *raws]), OCTETS, (length,))


def as_oip_error(response: HttpResponse) -> HttpResponse:
    """Give an error the protocol's shape: its message under `error`, and what else it says."""
    content = msgspec.json.decode(response.body)["error"]
    content["error"] = content.pop("message")
    return msgspec.structs.replace(response, body=_encode(content))


def _is_wanted_raw(options: InferOptions, name: str) -> bool:
    for wanted in options.outputs or ():
        if wanted.name == name and wanted.parameters and "binary_data" in wanted.parameters:
            return bool(wanted.parameters["binary_data"])
    return bool(options.parameters and options.parameters.get("binary_data_output"))
