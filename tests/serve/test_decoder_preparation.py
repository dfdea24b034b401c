"""No thread decodes a msgspec type for the first time, since two at once would crash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from clewline.project import Project

PROGRAM = """
import asyncio, sys
from pathlib import Path
import msgspec
from clewline import project
from clewline.serve.endpoint_server import prepare_decoders
from clewline.serve.endpoint_server import EndpointServer

def types():
    found = [msgspec.Struct]
    for each in found:
        found += each.__subclasses__()
    # Types that one thread makes for one revision stand in no module.
    shared = [each for each in found if hasattr(sys.modules[each.__module__], each.__name__)]
    return {f"{each.__module__}.{each.__name__}" for each in shared}

async def main():
    prepare_decoders()
    before = types()
    server = EndpointServer(project.find(Path(sys.argv[1])))
    await server.open()
    assert server.ready and len(server.endpoints) == 2
    await server.close()
    print(*sorted(types() - before))

asyncio.run(main())
"""


def test_loading_an_endpoint_needs_no_type_that_was_not_prepared(
    tmp_path: Path, loans: Callable[[Path], Project]
) -> None:
    project = loans(tmp_path)
    command = [sys.executable, "-c", PROGRAM, str(project.root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout.split() == []
