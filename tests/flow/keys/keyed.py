"""
Computes keys of steps in processes of their own.

    python keyed.py FOLDER...

Each folder is a project with a `pipe.py` that defines `step`. Every one is imported
and keyed in a child of this process; a JSON object, folder → key, is printed.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy  # noqa: F401  # once, before the children are forked
import polars  # noqa: F401

from clewline.flow.keys.step_key import function_parts, step_key


def keyed(folder: str) -> dict[str, object]:
    """The key of the step of a project."""
    sys.path.insert(0, folder)
    os.chdir(folder)
    pipe = importlib.import_module("pipe")
    params = getattr(pipe, "PARAMS", {})
    key = step_key(function_parts(pipe.step, Path(folder)), params, {}, seed=0, env={})
    return {"digest": key.digest, "parts": key.parts, "uncacheable": key.uncacheable}


def in_child(folder: str) -> dict[str, object]:
    """The same, in a fresh child."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = json.dumps(keyed(folder))
        except BaseException as error:  # reported to the parent process
            answer = json.dumps({"error": repr(error)})
        with os.fdopen(into, "w") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


if __name__ == "__main__":
    print(json.dumps({folder: in_child(folder) for folder in sys.argv[1:]}))
