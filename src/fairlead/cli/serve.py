"""`fairlead serve` and `fairlead up`: the prediction server."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from fairlead import project as projects
from fairlead.cli.output import message
from fairlead.errors import NotSupported, UsageError

if TYPE_CHECKING:
    from fairlead.serve.endpoints import Endpoints

PORT = 8470


Port: TypeAlias = Annotated[int, Parameter(help="0 lets the system choose one.")]
Host: TypeAlias = Annotated[str, Parameter(help="A loopback address.")]


def serve(
    *names: str,
    port: Port = PORT,
    host: Host = "127.0.0.1",
) -> None:
    """
    Start the prediction server; it runs until it is stopped, and then drains.

    Parameters
    ----------
    names
        Endpoints to serve; all that were applied when none is named.
    """
    from fairlead.protocols import server

    _check(host, port)
    project = projects.find()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("fairlead.serve").setLevel(logging.INFO)  # swaps: who answers, from when on
    server.run(project, names or None, host=host, port=port, ready=_ready)
    message("Stopped; every answered prediction is in the log.")


def up(*, port: Port = PORT, host: Host = "127.0.0.1") -> None:
    """Start everything for one machine: today that is the prediction server."""
    serve(port=port, host=host)


def _check(host: str, port: int) -> None:
    if not 0 <= port <= 65535:
        raise UsageError(f"{port} is no port.", "Choose one from 0 to 65535.")
    try:
        loopback = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError as error:
        raise UsageError(f"{host!r} is no IP address.", "Use 127.0.0.1 or ::1.") from error
    if not loopback:
        raise NotSupported(
            f"{host} is beyond loopback, and callers cannot be told apart yet.",
            "Use 127.0.0.1 and put a proxy that checks its callers in front.",
        )


def _ready(endpoints: Endpoints, url: str) -> None:
    """Say what is served, and where."""
    for endpoint in endpoints.endpoints.values():
        if endpoint.serving is not None:
            loaded = endpoint.serving.loaded
            models = ", ".join(loaded.revision.models.values())
            message(
                f"{loaded.ref} answers with {models}: {url}/v1/endpoints/{endpoint.name}/predict"
            )
        if endpoint.failure is not None:
            message(f"error: {endpoint.name}#{endpoint.wanted} is not served: {endpoint.failure}")
    if not endpoints.endpoints:
        message("There is no endpoint yet: `fairlead endpoints apply NAME` makes one; no restart.")
    message(f"Ready on {url}. Stop with Ctrl-C.")
