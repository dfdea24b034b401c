"""Ten thousand callers that say nothing, or half a request, keep nobody else waiting."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from support import process, wait_for

WANTED = 10_000
CLIENT = """
import resource, socket, sys
count, port = int(sys.argv[1]), int(sys.argv[2])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
for number in range(count):
    held.append(socket.create_connection(("127.0.0.1", port)))
    if number % 10 == 0:
        held[-1].sendall(b"POST /a HTTP/1.1\\r\\nHost: a\\r\\nContent-Len")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def certificate() -> None:
    """Without TLS: ten thousand handshakes measure the caller's processor."""


@pytest.mark.timeout(120)
def test_requests_are_answered_while_thousands_of_connections_are_idle(serve, connect):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    count = WANTED if unlimited else min(WANTED, hard - 500)  # what this system allows
    server = serve(head_s=60.0)
    caller = connect(server)
    command = [sys.executable, "-c", CLIENT, str(count), str(server.port)]
    with process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"held\n"
        wait_for(lambda: len(server.server.shared.connections) == count + 1)
        for _ in range(200):
            caller.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert caller.answer()[0] == 200
    wait_for(lambda: len(server.server.shared.connections) == 1)
    assert server.echo.handled == 200
