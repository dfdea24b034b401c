"""The prediction server in one process: endpoints, HTTP, and the order of starting and stopping."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from clewline.entry_points import install_command
from clewline.errors import NotSupported
from clewline.explain.background import explains_in_background
from clewline.explain.channel import ring
from clewline.protocols.app import HttpApp, make_app
from clewline.protocols.http.access_log import AccessLog
from clewline.protocols.http.listener import listening_socket
from clewline.protocols.http.request import HttpLimits
from clewline.protocols.http.server import HttpServer
from clewline.protocols.http.tls import Certificate
from clewline.protocols.rest import metrics
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve.access import TokenChecker, parse_address, tokens_required
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.metrics.metric_families import MetricFamily
from clewline.serve.metrics.shared_metrics import SharedMetrics
from clewline.workers.explaining_process import ExplainingProcess
from clewline.workers.messages import ServerOptions
from clewline.workers.peers import Peers
from clewline.workers.worker_table import WorkerState

if TYPE_CHECKING:
    from clewline.protocols.oip.grpc import OipGrpcServer

GARBAGE = 20_000
"""Objects between two collections: a request makes some twenty, and none in a cycle."""
SWITCH_S = 0.0005
"""How long a computing thread may keep the interpreter from the event loop."""
HAND_OVER_S = 1.0
"""How long a worker that is replaced waits for callers with idle connections."""
LAST_WORDS_S = 2.0
"""How long before the end of draining all waiting callers learn that the server stops."""
CLOSE_S = 1.0
"""How long closing may take when something hangs."""
RING_S = 1.0
"""Time between two looks whether there are rows to be explained in the background."""
LOOK_S = 0.1
"""Time between two looks at the explaining process of a server without a supervisor."""
BEAT_S = 0.25
"""Time between two heartbeats of a worker's loop."""


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
        endpoints: Answers the requests; opened and closed here.
        host: An IP address.
        port: 0 lets the system choose.
        limits: Limits for callers.
        ready: Called with the endpoints and the URL, once requests are answered.
        stop: Ends the server, after all requests that it has taken are answered.

    Raises:
        Conflict: The port is taken.
        NotFound, StoreFull, StoreReadOnly: As `EndpointServer.open`.
    """
    options = ServerOptions(project=str(endpoints.project.root), host=host, port=port)
    # Taken before anything is loaded, so that a conflict shows at once.
    with listening_socket(host, port) as listening:
        options = msgspec.structs.replace(options, port=listening.getsockname()[1])
        async with _explaining_process(options) as process:
            asked = AskedProcess(process.channel.asking, process.channel.bell)
            server = PredictionServer(endpoints, options, asked, limits)
            server.explaining_metrics = process.metrics
            await server.run(listening.dup(), lambda: ready(endpoints, options.url), stop)


@asynccontextmanager
async def _explaining_process(options: ServerOptions) -> AsyncIterator[ExplainingProcess]:
    """Look after an explaining process, from the loop of this process."""
    shared = SharedMetrics.create(1)
    generations = count(1)
    process = ExplainingProcess(
        options.project, options.explain, shared, 0, lambda: next(generations)
    )

    async def look_after() -> None:
        while True:
            process.look_after(time.monotonic())
            await asyncio.sleep(LOOK_S)

    looking = asyncio.create_task(look_after())
    try:
        yield process
    finally:
        looking.cancel()
        await asyncio.to_thread(process.close)
        for file in (*shared.files, *shared.bells):
            os.close(file)


class AskedProcess(NamedTuple):
    """How the explaining process of a server is asked."""

    asking: socket.socket
    bell: int


class PredictionServer:
    """
    Endpoints behind HTTP and gRPC, in one process.

    Args:
        endpoints: Answers the requests; opened and closed by `run`.
        options: The settings of the server.
        explaining: How the explaining process is asked.
        limits: Limits for callers.
        peers: The other workers, if there is a supervisor.
        console_secret: With which the server's console calls; None without one.
    """

    def __init__(
        self,
        endpoints: EndpointServer,
        options: ServerOptions,
        explaining: AskedProcess,
        limits: HttpLimits | None = None,
        peers: Peers | None = None,
        console_secret: str | None = None,
    ) -> None:
        self.endpoints = endpoints
        self._console_secret = console_secret
        self.options = options
        self.hands_over = False  # whether another process goes on with the same socket
        self.explaining_metrics: Callable[[], list[list[MetricFamily]]] = list  # if it is ours
        self._explaining = explaining
        self.left_behind = False  # whether something hangs, so that its threads do not end
        self._limits = limits or HttpLimits(
            connections=options.connections, drain_s=options.drain_s
        )
        self._peers = peers
        self._until = math.inf  # when draining is over, once it has begun
        self._closing = ExitStack()  # closes what was opened, the last first
        self._app: HttpApp | None = None
        self.grpc_port: int | None = None  # the port that was taken, once it runs

    async def run(
        self, listening: socket.socket, ready: Callable[[], None], stop: asyncio.Event
    ) -> None:
        """
        Answer on a socket until `stop` is set, and then all requests that were taken.

        Args:
            listening: A socket that listens already; it is closed here.
            ready: Called once requests are answered.
            stop: Ends the server.
        """
        app = self._app = self._make_app()
        options = self.options
        files = options.certificate_files
        certificate = app.health.certificate = None if files is None else Certificate(*files)
        http = HttpServer(app, self._limits, certificate)
        app.health.connections = lambda: len(http.shared.connections)
        http.take(listening)
        grpc = None
        try:
            if options.grpc_port is not None:
                grpc = self._listen_grpc(app, options.grpc_port)
            await self.endpoints.open()
            await http.start()
            if grpc is not None:
                await grpc.start()
            # All that is loaded stays; collections need not walk it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
            self._set_state(WorkerState.READY)
            ready()
            following = asyncio.create_task(self._ring_when_answered())
            await stop.wait()
            following.cancel()
            self._set_state(WorkerState.STOPPING)
            if self.hands_over:
                await http.hand_over(HAND_OVER_S)
            app.health.draining = True
            await self._drain(http, grpc)
        finally:
            http.close()
            await self._close()

    async def _ring_when_answered(self) -> None:
        """Wake the explaining process when an endpoint with rules for it has answered rows."""
        answered: dict[str, int] = {}  # revision → rows
        explains: dict[str, bool] = {}
        while True:
            for endpoint in self.endpoints.endpoints.values():
                statistics, serving = endpoint.opened_statistics, endpoint.serving
                if serving is None or statistics is None:
                    continue
                ref = serving.loaded.ref
                if ref not in explains:
                    explains[ref] = explains_in_background(serving.loaded.revision)
                if explains[ref] and answered.get(ref) != statistics.rows:
                    answered[ref] = statistics.rows
                    ring(self._explaining.bell)
            await asyncio.sleep(RING_S)

    async def _drain(self, http: HttpServer, grpc: OipGrpcServer | None) -> None:
        """Answer the requests that were taken; near the end, send callers elsewhere."""
        drain_s = self._limits.drain_s
        self._until = time.monotonic() + drain_s
        last_words_s = min(LAST_WORDS_S, drain_s / 2)
        asyncio.get_running_loop().call_later(drain_s - last_words_s, self.endpoints.give_up)
        await asyncio.gather(http.drain(), *(() if grpc is None else (grpc.drain(),)))

    async def _close(self) -> None:
        """Close everything, within the rest of the time for draining."""
        left_s = min(self._limits.drain_s, max(0.0, self._until - time.monotonic()))
        self.left_behind = not await self.endpoints.close(left_s)
        if not self.left_behind:
            self._closing.close()
            return
        closing = threading.Thread(target=self._closing.close, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_S)

    def metrics(self) -> list[MetricFamily]:
        """Read the metrics of this process; there are none before it runs."""
        return [] if self._app is None else metrics.collect(self.endpoints, self._app.health)

    def _make_app(self) -> HttpApp:
        options = self.options
        required = tokens_required(options.host, options.require_tokens)
        token_checker = TokenChecker(
            self.endpoints.project, required=required, console_secret=self._console_secret
        )
        log = None
        if options.access_log is not None:
            log = AccessLog(options.access_log)
            self._closing.callback(log.close)
        app = make_app(
            self.endpoints,
            token_checker,
            asking=self._explaining.asking,
            log=log,
            behind_proxy=options.behind_proxy,
            is_loopback=parse_address(options.host).is_loopback,
        )
        app.health.peers, app.health.explaining = self._peers, self.explaining_metrics
        if options.otel:
            try:
                from clewline.protocols.tracing import RequestTracing
            except ImportError as error:
                message = f"Spans cannot be recorded: {error}."
                raise NotSupported(message, install_command("otel")) from error
            tracing = self.endpoints.tracer = RequestTracing()
            self._closing.callback(tracing.close)
        token_checker.open()
        self._closing.callback(token_checker.close)
        return app

    def _listen_grpc(self, app: HttpApp, port: int) -> OipGrpcServer:
        """Take the port of gRPC."""
        try:
            from clewline.protocols.oip.grpc import OipGrpcServer
        except ImportError as error:
            message = f"gRPC cannot be served: {error}."
            raise NotSupported(message, install_command("grpc")) from error
        ready = RestRoutes(self.endpoints, app.health).ready
        grpc = OipGrpcServer(
            self.endpoints, app.token_checker, ready, app.health, app.hosts, self._limits, app.log
        )
        files, is_shared = self.options.certificate_files, self._peers is not None
        # The supervisor holds the port, so that only its workers share it.
        self.grpc_port = grpc.listen(self.options.host, port, certificate=files, shared=is_shared)
        return grpc

    def _set_state(self, state: WorkerState) -> None:
        if self._peers is not None:
            self._peers.monitor.slot.state = state
