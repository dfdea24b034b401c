"""Start a run in a process of its own, which goes on when its starter ends."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clewline.errors import ClewlineError, RunFailed
from clewline.store.records import Run

if TYPE_CHECKING:
    from clewline.project import Project
    from clewline.store import Store

START_S = 120.0
"""How long a process may take until its run is recorded: it imports the project's code."""
_LOOK_S = 0.1


def param_text(value: Any) -> str:
    """
    Write a recorded parameter as `clewline run` reads it.

    >>> param_text("a b"), param_text([1, 2]), param_text(True), param_text(None)
    ('a b', '[1, 2]', 'true', 'none')
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def start_run(
    project: Project,
    store: Store,
    pipeline: str,
    params: Mapping[str, str],
    *,
    seed: int | None = None,
    timeout_s: float = START_S,
) -> str:
    """
    Run a pipeline in a process of its own as `clewline run` does, and wait until it is recorded.

    Args:
        params: By name, each as one types it after `name=`.
        timeout_s: How long to wait for the record.

    Returns:
        The id of the run, which goes on.

    Raises:
        RunFailed: The process ended before there was a run, and said why; or it took too long.
    """
    words = [f"{name}={text}" for name, text in params.items()]
    given = [] if seed is None else ["--seed", str(seed)]
    command = [sys.executable, "-m", "clewline.flow.run_launcher", pipeline, *words, *given]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=project.root,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            found = store.catalog.find(Run, order="-started", limit=20)
            for run in found:
                if f":{process.pid}:" in run.process:
                    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie
                    return run.id
            if ended:
                said.seek(0)
                text = said.read()[-4000:].decode("utf-8", "replace").strip()
                raise RunFailed(
                    f"The run of {pipeline} could not start: {text or 'it said nothing'}",
                    f"Mend it, or try it in a terminal: clewline run {pipeline}",
                    run="",
                    step=None,
                )
            time.sleep(_LOOK_S)
    process.terminate()
    raise RunFailed(
        f"The run of {pipeline} was not recorded within {timeout_s:.0f} s, and was ended.",
        f"Try it in a terminal: clewline run {pipeline}",
        run="",
        step=None,
    )


def main(words: list[str]) -> int:
    """Run a pipeline of the project around the current folder; say on stderr why it failed."""
    from clewline import project as projects
    from clewline.flow.params import parse_params
    from clewline.flow.pipeline_files import find_pipeline
    from clewline.flow.run import execute
    from clewline.store import Store

    pipeline, *params = words
    seed = int(params.pop()) if params[-2:-1] == ["--seed"] else None
    params = params[:-1] if seed is not None else params
    try:
        project = projects.find()
        found = find_pipeline(project, pipeline)
        given = parse_params(found, params)
        with Store.open(project.store_root) as store:
            execute(
                found,
                given,
                project=project,
                store=store,
                seed=seed,
                command=shlex.join(["clewline", "run", *words]),
            )
    except ClewlineError as error:
        print(f"{error.message} {error.fix or ''}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
