"""The process of the console, started beside the prediction server by its supervisor."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import msgspec
import uvicorn

from clewline.console.access import ConsoleAccess, session_key
from clewline.console.app import Console
from clewline.console.server_connection import ServerConnection
from clewline.project import load
from clewline.serve.access import CONSOLE, PREFIX
from clewline.workers.messages import ConsoleOrders
from clewline.workers.server_log import configure_logging

STOP_S = 2
"""How long open requests may take once the server ends."""
CONNECTIONS = 512


def main() -> None:
    """Run the process; its argument is the descriptor of its orders."""
    with os.fdopen(int(sys.argv[1]), "rb") as written:
        written.seek(0)
        orders = msgspec.json.decode(written.read(), type=ConsoleOrders)
    configure_logging("console")
    options = orders.options
    project = load(Path(options.project))
    access = ConsoleAccess(project, options, session_key(project))
    access.open()
    console = Console(
        project,
        server=ServerConnection(options.url, f"{PREFIX}{CONSOLE}_{orders.secret}"),
        access=access,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            console.app,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=STOP_S,
            proxy_headers=False,
            ws="none",
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
    )

    def end_with_server() -> None:
        os.read(orders.lifeline, 1)  # returns when the supervisor has closed its end, or is gone
        server.should_exit = True

    threading.Thread(target=end_with_server, name="lifeline", daemon=True).start()
    try:
        server.run(sockets=[socket.socket(fileno=orders.listen)])
    finally:
        console.close()
        access.close()


if __name__ == "__main__":
    main()
