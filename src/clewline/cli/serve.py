"""`clewline serve` and `clewline up`: the prediction server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from clewline import project as projects
from clewline.cli.output import print_message
from clewline.cli.parameters import parse_size
from clewline.errors import UsageError

if TYPE_CHECKING:
    from clewline.workers.messages import ServerOptions, WorkerReady

WORKERS = 64


@Parameter(name="*", negative_bool=())
@dataclass(frozen=True)
class ServeFlags:
    """
    The options of `serve` and `up`.

    Parameters
    ----------
    port
        Listen on this port; 0 picks a free one.
    host
        Listen on this IP address; only loopback needs no tokens.
    workers
        Number of worker processes.
    grpc_port
        Serve gRPC on this port too; 0 picks a free one.
    model_memory
        Memory for loaded models in each worker, such as 1GiB.
    tls_cert
        PEM file with the certificate chain.
    tls_key
        PEM file with the private key.
    require_tokens
        Require a token on loopback too.
    behind_proxy
        Trust the last address in X-Forwarded-For; callers must not bypass the proxy.
    access_log
        Write a line of JSON per request to a file; - is stdout.
    otel
        Record OpenTelemetry spans (see OTEL_*).
    connections
        Maximum number of open connections per worker.
    explain_timeout
        Maximum number of seconds that one explanation takes.
    explain_memory
        Memory of the process that explains, such as 2GiB.
    """

    port: int = 8470
    host: str = "127.0.0.1"
    workers: int = 1
    grpc_port: int | None = None
    model_memory: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    require_tokens: bool = False
    behind_proxy: bool = False
    access_log: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    otel: bool = False
    connections: int = 16_384
    explain_timeout: float = 60.0
    explain_memory: str = "2GiB"


Flags = Annotated[ServeFlags | None, Parameter()]


def serve(*names: str, flags: Flags = None) -> None:
    """
    Start the prediction server. SIGTERM or Ctrl-C stops it, after all requests are answered.

    Parameters
    ----------
    names
        Endpoints to serve; all applied endpoints by default.
    """
    _run(flags or ServeFlags(), names=list(names) or None)


def up(*, console_port: int | None = None, flags: Flags = None) -> None:
    """
    Start everything for one machine: the prediction server and the console.

    Parameters
    ----------
    console_port
        Show the console on this port; by default the one after --port, and 0 picks a free one.
    """
    flags = flags or ServeFlags()
    if console_port is None:
        console_port = flags.port + 1 if flags.port else 0
    if not 0 <= console_port <= 65535:
        message = f"--console-port must be at least 0 and at most 65535 (got {console_port})."
        raise UsageError(message)
    if console_port and console_port in (flags.port, flags.grpc_port):
        message = f"The console cannot share port {console_port} with the prediction server."
        raise UsageError(message, "Choose another port with --console-port.")
    _run(flags, console_port=console_port)


def _run(
    flags: ServeFlags, *, names: list[str] | None = None, console_port: int | None = None
) -> None:
    from clewline.serve.access import parse_address
    from clewline.workers import server_log
    from clewline.workers.messages import ExplainLimits, ServerOptions
    from clewline.workers.supervisor import Supervisor

    _check(flags)
    settings = asdict(flags) | {"host": str(parse_address(flags.host))}
    memory = settings.pop("model_memory")
    limits = ExplainLimits(
        seconds=settings.pop("explain_timeout"),
        memory_bytes=parse_size(settings.pop("explain_memory")),
    )
    options = ServerOptions(
        project=str(projects.find().root),
        names=names,
        console_port=console_port,
        model_bytes=None if memory is None else parse_size(memory),
        explain=limits,
        **settings,
    )
    server_log.configure_logging()
    Supervisor(options, _announce, "clewline.console.process").run()
    print_message("Stopped; every answered prediction is in the log.")


def _check(flags: ServeFlags) -> None:
    limits = {
        "--port": (flags.port, 0, 65535),
        "--grpc-port": (flags.grpc_port or 0, 0, 65535),
        "--workers": (flags.workers, 1, WORKERS),
        "--connections": (flags.connections, 1, None),
    }
    if not flags.explain_timeout > 0:
        raise UsageError(f"--explain-timeout must be above 0 (got {flags.explain_timeout:g}).")
    for name, (value, least, most) in limits.items():
        if value < least or (most is not None and value > most):
            allowed = f"at least {least}" if most is None or value < least else f"at most {most}"
            raise UsageError(f"{name} must be {allowed} (got {value}).")
    if flags.port and flags.port == flags.grpc_port:
        message_ = f"HTTP and gRPC cannot share port {flags.port}."
        raise UsageError(message_, "Choose another port with --grpc-port.")
    if (flags.tls_cert is None) != (flags.tls_key is None):
        raise UsageError("TLS needs a certificate and a key.", "Set --tls-cert and --tls-key.")


def _announce(ready: WorkerReady, options: ServerOptions) -> None:
    url = options.url
    for each in ready.served:
        models = ", ".join(each.models)
        print_message(
            f"{each.ref} answers with {models}: {url}/v1/endpoints/{each.endpoint}/predict"
        )
    for failure in ready.failures:
        print_message(f"error: {failure}")
    if (more := ready.endpoints - len(ready.served) - len(ready.failures)) > 0:
        print_message(f"And {more} more: GET {url}/v1/endpoints lists them.")
    if not ready.endpoints:
        print_message("There is no endpoint yet. Add one with `clewline endpoints apply NAME`.")
    if options.grpc_target is not None:
        print_message(f"gRPC, for the Open Inference Protocol v2: {options.grpc_target}")
    if options.console_url is not None:
        print_message(f"Console: {options.console_url}")
    print_message(f"Ready on {url}. Stop with Ctrl-C.")
