"""The prediction server that runs beside the console, asked over HTTP."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from clewline.errors import Fault, NotFound

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What the prediction server answered."""

    status: int
    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class ServerConnection:
    """
    Asks the prediction server of the same process tree.

    Args:
        url: Its address; None when the console runs alone.
        secret: Presented as a token; the server gives it to its console only.
    """

    url: str | None = None
    secret: str | None = None

    def get(self, path: str) -> ServerAnswer:
        """
        Send a GET request for a path such as `/metrics`.

        Raises:
            NotFound: No server runs beside this console.
            Fault: The server does not answer.
        """
        return self._send("GET", path, b"")

    def post(
        self,
        path: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        timeout_s: float = TIMEOUT_S,
    ) -> ServerAnswer:
        """Send a POST request; raises as `get` does."""
        return self._send("POST", path, body, content_type, timeout_s)

    def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        content_type: str = "application/json",
        timeout_s: float = TIMEOUT_S,
    ) -> ServerAnswer:
        if self.url is None:
            raise NotFound(
                "No prediction server runs beside this console.",
                "Start both with `clewline up`.",
            )
        address = urlsplit(self.url)
        connection = (
            HTTPSConnection(
                address.hostname or "",
                address.port,
                timeout=timeout_s,
                context=ssl._create_unverified_context(),  # our own process, on this machine
            )
            if address.scheme == "https"
            else HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
        )
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        if self.secret is not None:
            headers["Authorization"] = f"Bearer {self.secret}"
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return ServerAnswer(
                answer.status, answer.read(), answer.headers.get("Content-Type", "")
            )
        except (OSError, HTTPException) as error:
            raise Fault(
                f"The prediction server at {self.url} does not answer: {error}.",
                "Look at the output of `clewline up`.",
            ) from error
        finally:
            connection.close()
