"""The prediction server as a process: endpoints, HTTP, signals, and the order of stopping."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterable

import uvloop

from fairlead.project import Project
from fairlead.protocols.app import make_app
from fairlead.protocols.http import HttpServer, Limits
from fairlead.serve.access import Gatekeeper
from fairlead.serve.endpoints import Endpoints

GARBAGE = 20_000
"""Objects between two collections: a request makes some twenty, and none in a cycle."""
SWITCH_S = 0.0005
"""How long a computing thread may keep the interpreter from the event loop."""


def run(
    project: Project,
    names: Iterable[str] | None,
    *,
    host: str,
    port: int,
    limits: Limits | None = None,
    ready: Callable[[Endpoints, str], None],
) -> None:
    """
    Serve until SIGTERM or SIGINT, then answer what is under way and return.

    Args:
        project: Whose endpoints.
        names: Only these; all that were applied if None.
        host: A loopback address.
        port: 0 lets the system choose.
        limits: What callers may ask.
        ready: Called with the endpoints and the URL, once requests are answered.

    Raises:
        Conflict: The port is taken.
        NotFound, StoreFull, StoreReadOnly: As `Endpoints.open`.
    """
    sys.setswitchinterval(SWITCH_S)
    uvloop.run(_until_signal(Endpoints(project, names), host, port, limits, ready))


async def serve(
    endpoints: Endpoints,
    host: str,
    port: int,
    limits: Limits | None,
    ready: Callable[[Endpoints, str], None],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set, then answer what is under way; otherwise as `run`."""
    gatekeeper = Gatekeeper(endpoints.project)
    app = make_app(endpoints, gatekeeper)
    server = HttpServer(app, limits)
    port = server.listen(host, port)  # before anything is loaded, so that a conflict shows at once
    try:
        gatekeeper.open()
        await endpoints.open()
        await server.start()
        # What is loaded stays; collections need not walk it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE)
        ready(endpoints, f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await stop.wait()
        app.vitals.draining = True
        await server.drain()
    finally:
        server.close()
        await endpoints.close()
        gatekeeper.close()


async def _until_signal(
    endpoints: Endpoints,
    host: str,
    port: int,
    limits: Limits | None,
    ready: Callable[[Endpoints, str], None],
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(endpoints, host, port, limits, ready, stop)
