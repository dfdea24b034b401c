"""The prediction server that runs beside the console, asked over HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import msgspec

from clewline.errors import Fault, FieldProblem, InvalidInput, NotFound

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What the prediction server answered."""

    status: int
    body: bytes
    content_type: str

    def decoded(self) -> Any:
        """
        Return what the JSON says.

        Raises:
            InvalidInput: The server refuses the rows; names every field.
            NotFound, Fault: The server answered with an error.
        """
        if self.status < 400:
            return msgspec.json.decode(self.body)
        try:
            said = msgspec.json.decode(self.body, type=_Refusal).error
        except msgspec.DecodeError:
            said = _RefusalReason(f"The prediction server answered {self.status}.")
        if self.status == 422:
            raise InvalidInput(said.message, None, tuple(said.fields))
        raise NotFound(said.message) if self.status == 404 else Fault(said.message)


class _RefusalReason(msgspec.Struct):
    message: str
    fields: list[FieldProblem] = []


class _Refusal(msgspec.Struct):
    error: _RefusalReason


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
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> ServerAnswer:
        """Send a POST request; raises as `get` does."""
        return self._send("POST", path, body, content_type, timeout_s, headers)

    def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        content_type: str = "application/json",
        timeout_s: float = TIMEOUT_S,
        more_headers: Mapping[str, str] | None = None,
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
        headers = {
            "Content-Type": content_type,
            "Accept": "application/json",
            **(more_headers or {}),
        }
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
