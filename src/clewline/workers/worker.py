"""
One worker of a server: a process that a supervisor has started.

    supervisor ── control (a line of JSON each) ──► worker      its end: the supervisor has died
    supervisor ◄── status (a line of JSON each) ─── worker      its end: the worker has died
    supervisor ◄── worker table, metrics ────────── worker      (mapped, files)

If its supervisor dies, a worker answers the requests that it has taken and stops. If
it hangs then, when nobody is left to end it, a timer of the kernel does.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec
import uvloop

from clewline import project as projects
from clewline.errors import ClewlineError, Fault
from clewline.serve.access import check_bind
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.metrics.shared_metrics import SharedMetrics
from clewline.workers import server_log
from clewline.workers.messages import (
    ForbidRevision,
    ReadyEndpoint,
    StopWorker,
    WorkerFailed,
    WorkerOrders,
    WorkerReady,
)
from clewline.workers.peers import Peers
from clewline.workers.server import BEAT_S, SWITCH_S, AskedProcess, PredictionServer
from clewline.workers.work_monitor import WorkMonitor
from clewline.workers.worker_table import START_S, WorkerTable

LAST_S = 30.0
"""How long beyond every limit a process may hang until the kernel ends it."""
SHOWN = 20
"""Number of endpoints that a ready server names."""

logger = logging.getLogger("clewline.workers.worker")  # this module runs as `__main__`


def main() -> None:
    """Run a worker; its arguments are the descriptors of its first orders and of later ones."""
    first, control = int(sys.argv[1]), os.fdopen(int(sys.argv[2]), "rb", buffering=0)
    orders = msgspec.json.decode(os.pread(first, os.fstat(first).st_size, 0), type=WorkerOrders)
    os.close(first)
    status = os.fdopen(orders.status, "wb", buffering=0)
    faulthandler.enable(orders.dump, all_threads=True)
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all processes
        signal.signal(number, signal.SIG_IGN)
    workers = orders.options.workers
    server_log.configure_logging(f"worker {orders.slot % workers}" if workers > 1 else "")
    sys.setswitchinterval(SWITCH_S)
    try:
        uvloop.run(Worker(orders, control, status).run())
    except ClewlineError as error:
        _send(status, WorkerFailed(type(error).__name__, error.message, error.fix))
        raise SystemExit(error.exit_code) from error


class Worker:
    """A server in this process that follows the orders of its supervisor."""

    def __init__(self, orders: WorkerOrders, control: BinaryIO, status: BinaryIO) -> None:
        self._orders = orders
        self._options = orders.options
        self._control = control
        self._status = status
        self._stop = asyncio.Event()
        self._unread = b""  # the part of an order that has come
        failures = {(each.endpoint, each.revision): _fault(each) for each in orders.forbidden}
        self._monitor = WorkMonitor(WorkerTable(orders.table), orders.slot, failures)
        shared = SharedMetrics(tuple(orders.metrics), tuple(orders.bells))
        self._peers = Peers(self._monitor, shared, orders.slot)
        self._endpoints: EndpointServer
        self._server: PredictionServer | None = None

    async def run(self) -> None:
        """Serve until an order, a signal, or the death of the supervisor."""
        loop = asyncio.get_running_loop()
        os.set_blocking(self._control.fileno(), False)
        loop.add_reader(self._control.fileno(), self._read_orders)
        loop.add_signal_handler(signal.SIGTERM, self._begin_to_stop, True)
        options = self._options
        project = projects.find(Path(options.project))
        warnings = check_bind(
            project,
            options.host,
            tls=options.tls_cert is not None,
            behind_proxy=options.behind_proxy,
            require_tokens=options.require_tokens,
        )
        for warning in warnings if self._monitor.seat == 0 else ():
            logger.warning(warning)
        limits = {} if options.model_bytes is None else {"model_bytes": options.model_bytes}
        self._endpoints = EndpointServer(project, options.names, **limits)
        self._endpoints.work_observer = self._monitor
        asked = AskedProcess(socket.socket(fileno=self._orders.asking), self._orders.explain_bell)
        server = self._server = PredictionServer(
            self._endpoints,
            options,
            asked,
            peers=self._peers,
            console_secret=self._orders.console_secret,
        )
        self._beat(loop, server)
        bell = self._orders.bells[self._orders.slot]
        loop.add_reader(bell, self._peers.answer_bell)
        await server.run(socket.socket(fileno=self._orders.listen), self._ready, self._stop)
        self._peers.publish(server.metrics())
        if server.left_behind:  # Python would wait for its threads, which may never end
            logging.shutdown()
            os._exit(0)

    def _beat(self, loop: asyncio.AbstractEventLoop, server: PredictionServer) -> None:
        self._peers.beat(server.metrics)
        if not self._stop.is_set():
            works = self._monitor.slot.works()
            longest_s = max([START_S, *(work.loop_s for work in works)])
            signal.setitimer(signal.ITIMER_REAL, longest_s + LAST_S)
        loop.call_later(BEAT_S, self._beat, loop, server)

    def _ready(self) -> None:
        served, failures = [], []
        for endpoint in self._endpoints.endpoints.values():
            if endpoint.serving is not None:
                loaded = endpoint.serving.loaded
                models = list(loaded.revision.models.values())
                served.append(ReadyEndpoint(endpoint.name, loaded.ref, models))
            if endpoint.failure is not None:
                wanted = f"{endpoint.name}#{endpoint.wanted}"
                failures.append(f"{wanted} is not served: {endpoint.failure}")
            elif not endpoint.ready:
                failures.append(f"{endpoint.name}#{endpoint.wanted} is not served yet: it loads")
        known = len(self._endpoints.endpoints)
        _send(self._status, WorkerReady(served[:SHOWN], failures[:SHOWN], known))

    def _read_orders(self) -> None:
        data = self._control.read(1 << 16)
        if data is None:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            logger.warning("the supervisor has died: this worker stops when all is answered")
            self._begin_to_stop()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            order = msgspec.json.decode(line, type=StopWorker | ForbidRevision)
            if isinstance(order, StopWorker):
                self._begin_to_stop(order.hands_over)
                continue
            error = _fault(order)
            self._monitor.forbid(order.endpoint, order.revision, error)
            endpoint = self._endpoints.endpoints.get(order.endpoint)
            if endpoint is not None and endpoint.wanted == order.revision:
                self._endpoints.fail(order.endpoint, error)

    def _begin_to_stop(self, hands_over: bool = False) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._options.drain_s + LAST_S)
        if self._server is not None:
            self._server.hands_over = hands_over
        self._stop.set()


def _fault(order: ForbidRevision) -> ClewlineError:
    return Fault(order.message, "Apply another revision; the server's log shows where it crashed.")


def _send(status: BinaryIO, message: WorkerReady | WorkerFailed) -> None:
    try:
        status.write(msgspec.json.encode(message) + b"\n")
    except BrokenPipeError:
        logger.warning("the supervisor has died")  # the end of its orders stops this worker


if __name__ == "__main__":
    main()
