"""What one caller, and all callers together, may ask of an HTTP server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Sizes in bytes, times in seconds; `docs/errors.md` says what happens beyond them."""

    head_bytes: int = 16 << 10  # request line and headers, and trailers
    body_bytes: int = 16 << 20
    buffered_bytes: int = 256 << 20  # bodies of all connections that are not answered yet
    pipelined: int = 64  # requests of one connection that are not answered yet
    connections: int = 16_384
    handshake_s: float = 10.0  # of TLS, from the connection to its end
    head_s: float = 10.0  # from the first byte to the end of the headers
    body_s: float = 60.0  # from there to the end of the body
    idle_s: float = 75.0  # between two requests
    write_s: float = 30.0  # how long a caller may leave answers unread
    linger_s: float = 2.0  # how long we read on after a refusal, so that it is not lost
    drain_s: float = 30.0  # how long a stopping server waits for what is under way
