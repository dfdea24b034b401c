"""Whether the caller of a request may do what it asks for."""

from __future__ import annotations

from clewline.protocols.http.request import HttpRequest
from clewline.serve.access import Need, TokenChecker


def check_token(token_checker: TokenChecker, request: HttpRequest, need: Need) -> str | None:
    """
    Return the id of the caller's token; None if none was presented and none is required.

    Raises:
        Unauthorized, Forbidden, TooManyFailures: As `TokenChecker.check`.
    """
    header = request.headers.get(b"authorization")
    presented = None if header is None else header.decode("latin-1")
    return token_checker.check(presented, request.peer_address, need)
