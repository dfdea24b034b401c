"""The prediction server in one process: endpoints, HTTP, and the order of starting and stopping."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clewline.entry_points import install_command
from clewline.errors import NotSupported
from clewline.protocols import metrics
from clewline.protocols.access_log import AccessLog
from clewline.protocols.app import HttpApp, make_app
from clewline.protocols.http.server import HttpLimits, HttpServer, listening_socket
from clewline.protocols.http.tls import Certificate
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve.access import TokenChecker, is_loopback
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.metrics.shared_metrics import MetricFamily
from clewline.workers.options import ServerOptions
from clewline.workers.peers import Peers
from clewline.workers.worker_table import WorkerState

if TYPE_CHECKING:
    from clewline.protocols.oip.grpc import OipGrpc
    from clewline.protocols.tracing import RequestTracing

GARBAGE = 20_000
"""Objects between two collections: a request makes some twenty, and none in a cycle."""
SWITCH_S = 0.0005
"""How long a computing thread may keep the interpreter from the event loop."""
HAND_OVER_S = 1.0
"""How long a worker that is replaced waits for callers whose connections are idle."""
LAST_WORDS_S = 2.0
"""How long before the end of draining everybody who still waits is told that the server stops."""
CLOSE_S = 1.0
"""How long the rest is waited for where something stands still."""
BEAT_S = 0.25
"""How often a worker says that its loop runs."""


async def serve(
    endpoints: EndpointServer,
    host: str,
    port: int,
    limits: HttpLimits | None,
    ready: Callable[[EndpointServer, str], None],
    stop: asyncio.Event,
) -> None:
    """
    Serve in this process, without a supervisor, until `stop` is set.

    Args:
        endpoints: Whom to ask; opened and closed here.
        host: An IP address.
        port: 0 lets the system choose.
        limits: What callers may ask.
        ready: Called with the endpoints and the URL, once requests are answered.
        stop: What is under way when it is set is answered first.

    Raises:
        Conflict: The port is taken.
        NotFound, StoreFull, StoreReadOnly: As `Endpoints.open`.
    """
    options = ServerOptions(project=str(endpoints.project.root), host=host, port=port)
    # Taken before anything is loaded, so that a conflict shows at once.
    with listening_socket(host, port) as listening:
        options = msgspec.structs.replace(options, port=listening.getsockname()[1])
        server = PredictionServer(endpoints, options, limits)
        await server.run(listening.dup(), lambda: ready(endpoints, options.url), stop)


class PredictionServer:
    """
    Endpoints behind HTTP, in one process.

    Args:
        endpoints: Whom to ask; opened and closed by `run`.
        options: What the server was told.
        limits: What callers may ask.
        team: The other workers of the server, where there is a supervisor.
    """

    def __init__(
        self,
        endpoints: EndpointServer,
        options: ServerOptions,
        limits: HttpLimits | None = None,
        team: Peers | None = None,
    ) -> None:
        self.endpoints = endpoints
        self.options = options
        self.hands_over = False  # whether another process goes on with the same socket
        self.left_behind = False  # whether something stands still, which nobody is to wait for
        self._limits = limits or HttpLimits(
            connections=options.connections, drain_s=options.drain_s
        )
        self._team = team
        self._until = math.inf  # when draining is over, once it has begun
        self._closing = ExitStack()  # closes what was opened, the last first
        self._app: HttpApp | None = None
        self.grpc_port: int | None = None  # that was taken, once it runs

    async def run(
        self, listening: socket.socket, ready: Callable[[], None], stop: asyncio.Event
    ) -> None:
        """
        Answer on a socket until `stop` is set, then what is under way.

        Args:
            listening: Listens already; it is closed here.
            ready: Called once requests are answered.
            stop: Ends it.
        """
        app = self._app = self._assemble()
        certificate = app.vitals.certificate = _certificate(self.options)
        server = HttpServer(app, self._limits, certificate)
        app.vitals.connections = lambda: len(server.shared.connections)
        server.take(listening)
        calls = None
        try:
            calls = self._calls(app)
            await self.endpoints.open()
            await server.start()
            if calls is not None:
                await calls.start()
            _settle_memory()
            self._show(WorkerState.READY)
            ready()
            await stop.wait()
            self._show(WorkerState.STOPPING)
            if self.hands_over:
                await server.hand_over(HAND_OVER_S)
            app.vitals.draining = True
            await self._drain(server, calls)
        finally:
            server.close()
            await self._close()

    async def _drain(self, server: HttpServer, calls: OipGrpc | None) -> None:
        """Answer what is under way; whom that would take too long is told to try elsewhere."""
        drain_s = self._limits.drain_s
        self._until = time.monotonic() + drain_s
        last_words_s = min(LAST_WORDS_S, drain_s / 2)
        asyncio.get_running_loop().call_later(drain_s - last_words_s, self.endpoints.give_up)
        await asyncio.gather(server.drain(), *(() if calls is None else (calls.drain(),)))

    async def _close(self) -> None:
        """Let go of everything, within what is left of the time for draining."""
        left_s = min(self._limits.drain_s, max(0.0, self._until - time.monotonic()))
        self.left_behind = not await self.endpoints.close(left_s)
        if not self.left_behind:
            self._closing.close()
            return
        closing = threading.Thread(target=self._closing.close, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_S)

    def families(self) -> list[MetricFamily]:
        """Read the metrics of this process; there are none before it runs."""
        if self._app is None:
            return []
        return metrics.collect(self.endpoints, self._app.vitals)

    def _assemble(self) -> HttpApp:
        options = self.options
        required = options.require_tokens or not is_loopback(options.host)
        gatekeeper = TokenChecker(self.endpoints.project, required=required)
        log = None
        if options.access_log is not None:
            log = AccessLog(options.access_log)
            self._closing.callback(log.close)
        app = make_app(self.endpoints, gatekeeper, log=log, behind_proxy=options.behind_proxy)
        app.vitals.peers = self._team
        if options.otel:
            tracing = _tracing()
            self.endpoints.tracer = tracing
            self._closing.callback(tracing.close)
        gatekeeper.open()
        self._closing.callback(gatekeeper.close)
        return app

    def _calls(self, app: HttpApp) -> OipGrpc | None:
        """Take the port of gRPC, where there is one."""
        options = self.options
        if options.grpc_port is None:
            return None
        grpc = _grpc_server(self.endpoints, app, self._limits)
        certificate = None
        if options.tls_cert is not None and options.tls_key is not None:
            certificate = Path(options.tls_cert), Path(options.tls_key)
        # The supervisor holds the port, so that only its workers share it.
        self.grpc_port = grpc.listen(
            options.host,
            options.grpc_port,
            certificate=certificate,
            shared=self._team is not None,
        )
        return grpc

    def _show(self, state: WorkerState) -> None:
        if self._team is not None:
            self._team.watched.slot.show(state)


def _grpc_server(endpoints: EndpointServer, app: HttpApp, limits: HttpLimits | None) -> OipGrpc:
    try:
        from clewline.protocols.oip.grpc import OipGrpc
    except ImportError as error:
        raise NotSupported(f"gRPC cannot be served: {error}.", install_command("grpc")) from error
    ready = RestRoutes(endpoints, app.vitals).ready
    return OipGrpc(endpoints, app.gatekeeper, ready, app.vitals, limits, app.log)


def _tracing() -> RequestTracing:
    try:
        from clewline.protocols.tracing import RequestTracing
    except ImportError as error:
        raise NotSupported(
            f"Spans cannot be recorded: {error}.", install_command("otel")
        ) from error
    return RequestTracing()


def _certificate(options: ServerOptions) -> Certificate | None:
    if options.tls_cert is None or options.tls_key is None:
        return None
    return Certificate(Path(options.tls_cert), Path(options.tls_key))


def _settle_memory() -> None:
    """What is loaded stays; collections need not walk it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
