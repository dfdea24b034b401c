"""The limits of an HTTP server, for one caller and for all callers together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Sizes in bytes, times in seconds; `docs/errors.md` lists the errors beyond them."""

    head_bytes: int = 16 << 10  # request line and headers, and trailers
    body_bytes: int = 16 << 20
    buffered_bytes: int = 256 << 20  # bodies of all connections, until they are answered
    pipelined: int = 64  # unanswered requests of one connection
    connections: int = 16_384
    handshake_s: float = 10.0  # of TLS, from the start of the connection
    head_s: float = 10.0  # from the first byte to the end of the headers
    body_s: float = 60.0  # from there to the end of the body
    idle_s: float = 75.0  # between two requests
    write_s: float = 30.0  # time in which a caller must read something
    linger_s: float = 2.0  # reading after a refusal, so that the caller gets it
    drain_s: float = 30.0  # waiting for requests under way when the server stops
