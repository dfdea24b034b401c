"""The Model Context Protocol over HTTP: host, origin and token are checked before the SDK reads."""

from __future__ import annotations

from typing import Any

import msgspec
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from clewline.errors import ClewlineError, Forbidden
from clewline.project import Project
from clewline.protocols.http.error_responses import STATUS
from clewline.protocols.http.host_check import HostCheck
from clewline.serve.access import TokenChecker, parse_address, tokens_required

READERS = frozenset({"view", "review", "operate"})


def serve_http(
    server: MCPServer, project: Project, host: str, port: int, *, require_tokens: bool = False
) -> None:
    """
    Answer until a signal comes. Beyond loopback a token with the role view is needed.

    Args:
        server: Of `tools.make_mcp_server`.
        project: Whose tokens count.
        host: An IP address.
        port: 0 picks a free one, which uvicorn prints.
        require_tokens: On loopback too.
    """
    tokens = TokenChecker(project, required=tokens_required(host, require_tokens))
    tokens.open()
    hosts = HostCheck(project.allowed_hosts, is_loopback=parse_address(host).is_loopback)
    inner: Any = server.streamable_http_app(
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False)
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.lower(): value for name, value in scope["headers"]}
            try:
                hosts.check(headers)
                _check_reader(tokens, headers, scope)
            except ClewlineError as error:
                await _refuse(send, error)
                return
        await inner(scope, receive, send)

    try:
        uvicorn.run(app, host=host, port=port, log_level="warning", interface="asgi3")
    finally:
        tokens.close()


def _check_reader(tokens: TokenChecker, headers: dict[bytes, bytes], scope: Any) -> None:
    header = headers.get(b"authorization")
    peer = scope["client"][0] if scope.get("client") else ""
    identifier = tokens.check(None if header is None else header.decode("latin-1"), peer, "any")
    token = None if identifier is None else tokens.valid_token(identifier)
    if token is not None and not READERS & set(token.roles):
        raise Forbidden(
            f"The token {token.id} has the role {', '.join(token.roles)}; view is needed.",
            "Add a token that has it with `clewline tokens add --role view`.",
        )


async def _refuse(send: Any, error: ClewlineError) -> None:
    body = msgspec.json.encode(
        {"error": {"code": error.code, "message": error.message, "fix": error.fix}}
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    status = STATUS.get(error.code, 500)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
