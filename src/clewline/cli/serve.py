"""`clewline serve` and `clewline up`: the prediction server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from clewline import project as projects
from clewline.cli.output import message
from clewline.cli.parameters import parse_size
from clewline.errors import UsageError

if TYPE_CHECKING:
    from clewline.workers.messages import WorkerReady
    from clewline.workers.options import ServerOptions

PORT = 8470
CONNECTIONS = 16_384
WORKERS = 64

Port: TypeAlias = Annotated[int, Parameter(help="0 lets the system choose one.")]
Host: TypeAlias = Annotated[
    str, Parameter(help="An IP address; beyond loopback, tokens are asked.")
]
Workers: TypeAlias = Annotated[int, Parameter(help="Processes that answer.")]
GrpcPort: TypeAlias = Annotated[
    int | None, Parameter(help="Speak gRPC there; 0 lets the system choose one.")
]
Memory: TypeAlias = Annotated[
    str | None, Parameter(help="What loaded models may take in each worker, such as 1GiB.")
]
TlsCert: TypeAlias = Annotated[str | None, Parameter(help="A PEM file: the certificate's chain.")]
TlsKey: TypeAlias = Annotated[str | None, Parameter(help="A PEM file: its private key.")]
RequireTokens: TypeAlias = Annotated[
    bool, Parameter(help="Ask for a token on loopback as well.", negative=())
]
BehindProxy: TypeAlias = Annotated[
    bool,
    Parameter(
        help="Believe the last address of X-Forwarded-For; only a proxy can reach it.", negative=()
    ),
]
AccessLog: TypeAlias = Annotated[
    str | None, Parameter(help="A file for a line of JSON per request; - for stdout.")
]
Otel: TypeAlias = Annotated[
    bool, Parameter(help="Record spans; the OTEL_* variables say where they go.", negative=())
]
Connections: TypeAlias = Annotated[int, Parameter(help="Of callers, to each worker.")]


def serve(
    *names: str,
    port: Port = PORT,
    host: Host = "127.0.0.1",
    workers: Workers = 1,
    grpc_port: GrpcPort = None,
    model_memory: Memory = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    require_tokens: RequireTokens = False,
    behind_proxy: BehindProxy = False,
    access_log: AccessLog = None,
    otel: Otel = False,
    connections: Connections = CONNECTIONS,
) -> None:
    """
    Start the prediction server; it runs until it is stopped, and then drains.

    Parameters
    ----------
    names
        Endpoints to serve; all that were applied when none is named.
    """
    from clewline.protocols import server_log
    from clewline.workers.options import ServerOptions
    from clewline.workers.supervisor import Supervisor

    _check(port, grpc_port, workers, connections, (tls_cert, tls_key))
    options = ServerOptions(
        project=str(projects.find().root),
        names=list(names) or None,
        host="127.0.0.1" if host == "localhost" else _address(host),
        port=port,
        workers=workers,
        grpc_port=grpc_port,
        model_bytes=None if model_memory is None else parse_size(model_memory),
        tls_cert=tls_cert,
        tls_key=tls_key,
        require_tokens=require_tokens,
        behind_proxy=behind_proxy,
        access_log=access_log,
        otel=otel,
        connections=connections,
    )
    server_log.configure_logging()
    Supervisor(options, _ready).run()
    message("Stopped; every answered prediction is in the log.")


def up(
    *,
    port: Port = PORT,
    host: Host = "127.0.0.1",
    workers: Workers = 1,
    grpc_port: GrpcPort = None,
    model_memory: Memory = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    require_tokens: RequireTokens = False,
    behind_proxy: BehindProxy = False,
    access_log: AccessLog = None,
    otel: Otel = False,
    connections: Connections = CONNECTIONS,
) -> None:
    """Start everything for one machine: today that is the prediction server."""
    serve(
        port=port,
        host=host,
        workers=workers,
        grpc_port=grpc_port,
        model_memory=model_memory,
        tls_cert=tls_cert,
        tls_key=tls_key,
        require_tokens=require_tokens,
        behind_proxy=behind_proxy,
        access_log=access_log,
        otel=otel,
        connections=connections,
    )


def _check(
    port: int,
    grpc_port: int | None,
    workers: int,
    connections: int,
    tls: tuple[str | None, str | None],
) -> None:
    for each in (port, grpc_port or 0):
        if not 0 <= each <= 65535:
            raise UsageError(f"{each} is no port.", "Choose one from 0 to 65535.")
    if port and port == grpc_port:
        raise UsageError(f"HTTP and gRPC cannot share port {port}.", "Choose another one for gRPC.")
    if not 1 <= workers <= WORKERS:
        raise UsageError(f"{workers} workers cannot be.", f"Choose 1 to {WORKERS}.")
    if connections < 1:
        raise UsageError(f"{connections} connections cannot be.", "Allow 1 or more.")
    if (tls[0] is None) != (tls[1] is None):
        raise UsageError("TLS needs both files.", "Give --tls-cert and --tls-key.")


def _address(host: str) -> str:
    """Give an IP address as it is written shortest."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(host))
    except ValueError as error:
        raise UsageError(
            f"{host!r} is no IP address.", "Use one of this machine's, such as 127.0.0.1 or ::1."
        ) from error


def _ready(ready: WorkerReady, options: ServerOptions) -> None:
    """Say what is served, and where."""
    url = options.url
    for each in ready.served:
        models = ", ".join(each.models)
        message(f"{each.ref} answers with {models}: {url}/v1/endpoints/{each.endpoint}/predict")
    for failure in ready.failures:
        message(f"error: {failure}")
    if (more := ready.endpoints - len(ready.served) - len(ready.failures)) > 0:
        message(f"And {more} more; GET {url}/v1/endpoints lists them.")
    if not ready.endpoints:
        message("There is no endpoint yet: `clewline endpoints apply NAME` makes one; no restart.")
    if options.grpc_target is not None:
        message(f"gRPC, for the Open Inference Protocol v2: {options.grpc_target}")
    message(f"Ready on {url}. Stop with Ctrl-C.")
