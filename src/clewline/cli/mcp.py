"""`clewline mcp`: the line for assistants."""

from __future__ import annotations

from clewline.cli.output import print_message
from clewline.entry_points import install_command
from clewline.errors import NotSupported
from clewline.project import find
from clewline.store.store import Store


def mcp(*, port: int | None = None, host: str = "127.0.0.1", require_tokens: bool = False) -> None:
    """
    Serve the line to assistants over the Model Context Protocol, read-only.

    Parameters
    ----------
    port
        Serve streamable HTTP at /mcp on this port; by default stdin and stdout are used.
    host
        Listen on this IP address; only loopback needs no tokens.
    require_tokens
        Require a token on loopback too.
    """
    try:
        from clewline.protocols.mcp.tools import make_mcp_server
    except ImportError as error:
        message = f"Assistants cannot be served: {error}."
        raise NotSupported(message, install_command("mcp")) from error
    project = find()
    with Store.open(project.store_root, write=False) as store:
        server = make_mcp_server(project, store)
        if port is None:
            server.run()
            return
        from clewline.protocols.mcp.http import serve_http
        from clewline.serve.access import check_bind

        for warning in check_bind(project, host, require_tokens=require_tokens):
            print_message(f"warning: {warning}")
        print_message(f"Serving assistants on http://{host}:{port}/mcp. Stop with Ctrl-C.")
        serve_http(server, project, host, port, require_tokens=require_tokens)
