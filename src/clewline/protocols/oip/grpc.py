"""
The Open Inference Protocol v2 over gRPC, on the event loop of everything else.

    ServerLive    ServerReady    ServerMetadata    ModelReady    ModelMetadata    ModelInfer
    RepositoryIndex    RepositoryModelLoad    RepositoryModelUnload

Other methods of the service, streaming among them, are refused as UNIMPLEMENTED.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
import grpc.aio
import msgspec

from clewline.errors import ClewlineError, Conflict, Fault
from clewline.protocols.http.access_log import AccessLog, AccessRecord
from clewline.protocols.http.error_responses import STATUS
from clewline.protocols.http.health import ServerHealth
from clewline.protocols.http.host_check import HostCheck
from clewline.protocols.http.request import HttpLimits, HttpResponse
from clewline.protocols.http.request_headers import checked_key
from clewline.protocols.oip import grpc_messages, infer_response, model_metadata
from clewline.protocols.oip.body_format import OIP_BINARY
from clewline.protocols.oip.grpc_messages import SERVICE, read_message, write_message
from clewline.protocols.oip.inference import LARGE_BYTES
from clewline.serve.access import Need, TokenChecker
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision
from clewline.store.disk import known_error

logger = logging.getLogger(__name__)

CODES: dict[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Status of the one table of errors → status of gRPC, else INTERNAL."""

DETAIL_CHARACTERS = 1000
"""The longest message of an error: it travels among the headers, which are small."""
CODE = "clewline-code"
"""The trailing metadata that has the code of an error."""
CALLS = 8192
"""The most calls at once; further ones are refused as RESOURCE_EXHAUSTED."""

GONE = 499
"""The status that counts calls whose caller left, or whose deadline passed."""

T = TypeVar("T")


class _Call(msgspec.Struct):
    """A call in progress, and what the access log says of it."""

    name: str
    context: Any
    metadata: dict[str, str]
    started: float
    identity: str | None = None  # the id of the token that was shown
    endpoint: str | None = None
    rows: int = 0
    first_id: bytes = b""


Handler = Callable[[bytes, _Call], Awaitable[bytes]]


class OipGrpcServer:
    """
    Serves endpoints over gRPC. Lives on the loop's thread.

    Args:
        endpoints: The endpoints that are served.
        token_checker: Checks the token of each call.
        ready: Returns the answer of `/health/ready`.
        health: Counts the calls, by the statuses of the one table.
        hosts: Refuses calls of browsers. What a call names as its host, gRPC does not tell.
        limits: The largest message, and how long a stop waits.
        log: The access log, if there is one.
    """

    def __init__(
        self,
        endpoints: EndpointServer,
        token_checker: TokenChecker,
        ready: Callable[[], HttpResponse],
        health: ServerHealth,
        hosts: HostCheck,
        limits: HttpLimits | None = None,
        log: AccessLog | None = None,
    ) -> None:
        self.endpoints = endpoints
        self._token_checker = token_checker
        self._is_ready = ready
        self._health = health
        self._hosts = hosts
        self._limits = limits or HttpLimits()
        self._log = log
        self._lists = model_metadata.shared_lists(
            endpoints, lambda models: write_message("RepositoryIndexResponse", {"models": models})
        )
        self._server: grpc.aio.Server

    def listen(
        self,
        host: str,
        port: int,
        *,
        certificate: tuple[Path, Path] | None = None,
        shared: bool = False,
    ) -> int:
        """
        Bind an address; calls are answered after `start`.

        Args:
            host: An IP address.
            port: 0 for any free port.
            certificate: PEM files of the certificate chain and its key, for TLS.
            shared: Whether other workers listen on the same port.

        Returns:
            The port.

        Raises:
            Conflict: Another process listens there.
        """
        options = [
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_receive_message_length", self._limits.body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", self._limits.head_bytes),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CALLS)
        self._server.add_generic_rpc_handlers((self._handlers(),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificate is None:
                return int(self._server.add_insecure_port(address))
            chain, key = certificate
            pair = (key.read_bytes(), chain.read_bytes())
            credentials = grpc.ssl_server_credentials([pair])
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise Conflict(
                f"Cannot listen on port {port} of {host}.",
                "Stop the server that holds it, or choose another one with --grpc-port N.",
            ) from error

    async def start(self) -> None:
        """Begin to answer."""
        await self._server.start()

    async def drain(self) -> None:
        """Take no more calls, and answer those under way."""
        await self._server.stop(self._limits.drain_s)

    def _handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, tuple[Need | None, Handler]] = {
            "ServerLive": (None, _answerer(lambda: {"live": True})),
            "ServerReady": (None, _answerer(lambda: {"ready": self._is_ready().status == 200})),
            "ServerMetadata": ("any", _answerer(lambda: model_metadata.SERVER_METADATA)),
            "ModelReady": ("any", self._model_ready),
            "ModelMetadata": ("any", self._model),
            "ModelInfer": ("predict", self._infer),
            "RepositoryIndex": ("any", self._index),
            "RepositoryModelLoad": ("operate", self._load),
            "RepositoryModelUnload": ("operate", self._unload),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(self._guard(name, need, handler))
                for name, (need, handler) in methods.items()
            },
        )

    def _guard(
        self, name: str, need: Need | None, handler: Handler
    ) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Give a method what all share: access, errors by the one table, and counting."""

        async def answered(data: bytes, context: Any) -> bytes:
            pairs = context.invocation_metadata() or ()
            metadata = {key: value for key, value in pairs if isinstance(value, str)}
            call = _Call(name, context, metadata, time.perf_counter())
            try:
                if "origin" in metadata or "sec-fetch-site" in metadata:
                    self._hosts.check({k.encode(): v.encode() for k, v in metadata.items()})
                presented = metadata.get("authorization")
                if need and (presented is not None or self._token_checker.required):
                    peer = peer_address(context.peer())
                    call.identity = self._token_checker.check(presented, peer, need)
                answer = await handler(data, call)
            except ClewlineError as error:
                failure: ClewlineError = error
            except asyncio.CancelledError:
                self._note(call, GONE)
                raise
            except Exception as error:
                logger.exception("%s failed", name)
                fault = Fault("The server failed on this call.", "Its log has the reason.")
                failure = known_error(error, fault)
            else:
                self._note(call, 200, len(answer))
                return answer
            status = STATUS.get(failure.code, 500)
            self._note(call, status)
            code = CODES.get(status, grpc.StatusCode.INTERNAL)
            message = str(failure)[:DETAIL_CHARACTERS]
            await context.abort(code, message, ((CODE, failure.code),))
            raise AssertionError("an aborted call does not go on")

        return answered

    def _note(self, call: _Call, status: int, size: int = 0) -> None:
        """Count a call, and leave its line in the access log."""
        route = f"oip.grpc.{call.name}"
        self._health.statuses[route, status] += 1
        if self._log is None:
            return
        line = AccessRecord(
            time.time(),
            peer_address(call.context.peer()),
            call.identity,
            b"POST",
            f"/{SERVICE}/{call.name}".encode(),
            route,
            call.endpoint,
            status,
            time.perf_counter() - call.started,
            call.rows,
            call.first_id,
            size,
        )
        self._log.append(line)

    async def _model_ready(self, data: bytes, call: _Call) -> bytes:
        request = read_message("ModelReadyRequest", data)
        endpoint = self.endpoints.get(request.name)
        model_metadata.check_version(endpoint, request.version)
        return write_message("ModelReadyResponse", {"ready": model_metadata.is_ready(endpoint)})

    async def _model(self, data: bytes, call: _Call) -> bytes:
        request = read_message("ModelMetadataRequest", data)
        endpoint = self.endpoints.get(request.name)
        model_metadata.check_version(endpoint, request.version)
        serving = await self._loaded(endpoint)
        return write_message(
            "ModelMetadataResponse", model_metadata.describe_model(serving, endpoint.name)
        )

    async def _index(self, data: bytes, call: _Call) -> bytes:
        request = read_message("RepositoryIndexRequest", data)
        return await _awaited(self._lists[request.ready].ask)

    async def _load(self, data: bytes, call: _Call) -> bytes:
        request = read_message("RepositoryModelLoadRequest", data)
        model_metadata.check_load_parameters(dict.fromkeys(request.parameters))
        await self.endpoints.load(request.model_name)
        return b""

    async def _unload(self, data: bytes, call: _Call) -> bytes:
        request = read_message("RepositoryModelUnloadRequest", data)
        await self.endpoints.unload(request.model_name)
        return b""

    async def _infer(self, data: bytes, call: _Call) -> bytes:
        request = await self._do(
            partial(grpc_messages.read_inference, data), takes_long=len(data) > LARGE_BYTES
        )
        endpoint = self.endpoints.get(request.model)
        call.endpoint, status = endpoint.name, 200
        try:
            return await self._predict(endpoint, request, call)
        except ClewlineError as error:
            status = STATUS.get(error.code, 500)
            raise
        finally:
            endpoint.statistics.record_request((status, time.perf_counter() - call.started))

    async def _predict(
        self, endpoint: ServedEndpoint, request: grpc_messages.GrpcInference, call: _Call
    ) -> bytes:
        model_metadata.check_version(endpoint, request.version)
        serving = endpoint.serving or await self._loaded(endpoint)
        output = serving.loaded.signature.output
        infer_response.check_outputs(request.options, output)
        predict_request = PredictRequest(request.body, OIP_BINARY, request.detail)
        predict_request.abandoned = call.context.cancelled
        if (key := call.metadata.get("idempotency-key")) is not None:
            predict_request.key = checked_key(key)
        if "traceparent" in call.metadata:
            carrier = ("traceparent", "tracestate")
            predict_request.trace = {
                key: call.metadata[key] for key in carrier if key in call.metadata
            }
        if (remaining_s := call.context.time_remaining()) is not None:
            predict_request.deadline = call.started + remaining_s
        infer_response.apply_parameters(predict_request, request.options)
        result = await _awaited(partial(predict, self.endpoints, endpoint, predict_request))
        call.rows, call.first_id = len(result.predictions), result.first_id

        def write() -> bytes:
            tensors = infer_response.infer_response(result, output, request.options)
            return grpc_messages.write_inference(endpoint.name, request, tensors)

        return await self._do(write, takes_long=call.rows > infer_response.LARGE_ROWS)

    async def _do(self, work: Callable[[], T], *, takes_long: bool) -> T:
        """Run work that takes long on a thread, and anything else at once."""
        if not takes_long:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self.endpoints.threads, work)

    async def _loaded(self, endpoint: ServedEndpoint) -> ServedRevision:
        return await _awaited(partial(self.endpoints.when_loaded, endpoint))


def _answerer(answer: Callable[[], dict[str, Any]]) -> Handler:
    """Make the handler of a method that reads no message."""

    async def handle(data: bytes, call: _Call) -> bytes:
        return write_message(f"{call.name}Response", answer())

    return handle


async def _awaited(ask: Callable[[Callable[[T | ClewlineError], None]], None]) -> T:
    """Await what a function gives to its callback; raise it if it is an error."""
    found: asyncio.Future[T | ClewlineError] = asyncio.get_running_loop().create_future()

    def settle(result: T | ClewlineError) -> None:
        if not found.done():  # else nobody waits any more
            found.set_result(result)

    ask(settle)
    result = await found
    if isinstance(result, ClewlineError):
        raise result
    return result


def peer_address(peer: str) -> str:
    """
    Read the address in what gRPC calls a peer.

    >>> peer_address("ipv4:127.0.0.1:50812"), peer_address("ipv6:%5B::1%5D:50812")
    ('127.0.0.1', '::1')
    """
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
