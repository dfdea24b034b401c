"""The fresh process of a replay: `python -m clewline.flow.replay_worker REQUEST`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from clewline.errors import ClewlineError

RESULT = "result.json"
"""The file beside the request: the error that stopped the run, or null when it finished."""


class ReplayRequest(msgspec.Struct, frozen=True):
    """A recorded run, restored into a folder."""

    root: str
    run: str
    pipeline: str
    params: dict[str, Any]
    seed: int
    moved: dict[str, str]  # recorded path → path of the restored copy
    directory: str  # from which relative paths were resolved


def main(path: Path) -> None:
    """Execute the run of a request, and write the error that stopped it, or null."""
    request = msgspec.json.decode(path.read_bytes(), type=ReplayRequest)
    (path.parent / RESULT).write_bytes(msgspec.json.encode(_execute(request)))


def _execute(request: ReplayRequest) -> str | None:
    from clewline.flow.input_paths import InputPaths
    from clewline.flow.params import from_record
    from clewline.flow.pipeline_files import find_pipeline
    from clewline.flow.run import execute
    from clewline.project import load
    from clewline.store import Store

    project = load(Path(request.root))
    try:
        pipeline = find_pipeline(project, request.pipeline)
        with Store.open(project.store_root) as store:
            execute(
                pipeline,
                from_record(pipeline, request.params),
                project=project,
                store=store,
                seed=request.seed,
                cache=False,
                command=f"clewline replay {request.run}",
                paths=InputPaths(Path(request.directory), request.moved),
                replay_of=request.run,
            )
    except ClewlineError as error:
        return error.message
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
