"""The settings of a server, and the messages between supervisor and workers: lines of JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec

LIMIT_STATUS = 3
"""Exit status of an explaining process whose explanation took too much time or memory."""


class ExplainLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one explanation may take, and how long the explaining process waits for the next."""

    seconds: float = 60.0  # time in which it waits for a CPU does not count
    memory_bytes: int = 2 << 30
    idle_s: float = 60.0


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a server; every worker gets the same."""

    project: str  # its folder
    names: list[str] | None = None  # endpoints to serve; None: all applied endpoints
    host: str = "127.0.0.1"
    port: int = 8470  # 0 lets the system choose
    workers: int = 1
    grpc_port: int | None = None  # None: no gRPC; 0 lets the system choose
    console_port: int | None = None  # None: no console; 0 lets the system choose
    tls_cert: str | None = None  # PEM files
    tls_key: str | None = None
    require_tokens: bool = False  # on loopback too
    behind_proxy: bool = False  # trust the last address in X-Forwarded-For
    access_log: str | None = None
    otel: bool = False  # record spans; the OTEL_* variables configure where
    model_bytes: int | None = None  # memory for loaded models, of each worker
    connections: int = 16_384  # open connections of each worker
    drain_s: float = 30.0  # how long a stopping worker goes on to answer
    explain: ExplainLimits = ExplainLimits()

    @property
    def certificate_files(self) -> tuple[Path, Path] | None:
        """The certificate chain and its key; None without TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return Path(self.tls_cert), Path(self.tls_key)

    @property
    def url(self) -> str:
        """The address for HTTP."""
        scheme = "https" if self.tls_cert else "http"
        return f"{scheme}://{self._url_host}:{self.port}"

    @property
    def console_url(self) -> str | None:
        """The address of the console; None without one."""
        if self.console_port is None:
            return None
        scheme = "https" if self.tls_cert else "http"
        return f"{scheme}://{self._url_host}:{self.console_port}"

    @property
    def grpc_target(self) -> str | None:
        """The address for gRPC clients; None without gRPC."""
        return None if self.grpc_port is None else f"{self._url_host}:{self.grpc_port}"

    @property
    def _url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


class ForbidRevision(msgspec.Struct, frozen=True, tag=True):
    """Neither load nor serve a revision any more: it has crashed too often."""

    endpoint: str
    revision: int
    message: str


class StopWorker(msgspec.Struct, frozen=True, tag=True):
    """Answer all requests that were taken, and stop."""

    hands_over: bool = False  # whether another worker goes on with the socket


class WorkerOrders(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker needs to start."""

    options: ServerOptions
    slot: int  # its place in the worker table
    forbidden: list[ForbidRevision]
    console_secret: str | None  # with which the console calls; None without one
    # Descriptors that it has inherited.
    listen: int
    asking: int  # of the channel to the explaining process
    explain_bell: int
    table: int
    metrics: list[int]
    bells: list[int]
    status: int
    dump: int  # of the file to which its stacks are written if it crashes


class ConsoleOrders(msgspec.Struct, frozen=True, kw_only=True):
    """All that the console's process needs to start."""

    options: ServerOptions
    secret: str  # with which it calls the prediction server
    # Descriptors that it has inherited.
    listen: int
    lifeline: int


class ExplainingOrders(msgspec.Struct, frozen=True, kw_only=True):
    """All that the explaining process needs to start."""

    project: str  # its folder
    limits: ExplainLimits
    generation: int
    # Descriptors that it has inherited.
    taking: int  # of the channel
    bell: int
    metrics: int
    lifeline: int


class ReadyEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that answers."""

    endpoint: str
    ref: str  # name#number
    models: list[str]


class WorkerReady(msgspec.Struct, frozen=True, tag=True):
    """The worker answers requests."""

    served: list[ReadyEndpoint]
    failures: list[str]
    endpoints: int  # how many there are


class WorkerFailed(msgspec.Struct, frozen=True, tag=True):
    """The worker cannot start, and knows why."""

    error: str  # the class
    message: str
    fix: str | None
