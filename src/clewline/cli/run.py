"""`clewline run`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clewline.cli.output import Mode, console, emit, message

if TYPE_CHECKING:
    from clewline.flow.run_recorder import RunEvent


def run(pipeline: str, /, *params: str, seed: int | None = None, cache: bool = True) -> None:
    """
    Run a pipeline of this project, and record it.

    Parameters
    ----------
    pipeline
        Its name, as decorated with @cl.pipeline in pipelines.py or pipelines/.
    params
        Parameters of the pipeline as key=value.
    seed
        Seed of the run; fills a parameter `seed` that is not given.
    cache
        Take what earlier runs have made, where nothing has changed.
    """
    fix_hash_seed()
    from clewline import project as projects
    from clewline.flow.params import parse_params
    from clewline.flow.pipeline_files import find_pipeline
    from clewline.flow.run import execute
    from clewline.store import Store

    project = projects.find()
    found = find_pipeline(project, pipeline)
    given = parse_params(found, params)
    with Store.open(project.store_root) as store, progress() as shown:
        done = execute(
            found,
            given,
            project=project,
            store=store,
            seed=seed,
            cache=cache,
            listener=Told(shown),
            command=shlex.join(["clewline", *sys.argv[1:]]),
        )
        from clewline.cli.runs import run_as_data

        data = run_as_data(store, done)
    emit(data, show)


def fix_hash_seed() -> None:
    """
    Start this command again with a fixed hash seed.

    The order of sets of texts hangs on it, and it cannot be changed in a running
    process. Only the command itself does so, never a program that imports us.
    """
    is_command = Path(sys.argv[0]).name in ("clewline", "clewline.exe") or sys.argv[0].endswith(
        os.path.join("cli", "main.py")
    )
    if is_command and "PYTHONHASHSEED" not in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


class Told:
    """A listener that says which run was interrupted."""

    def __init__(self, shown: Callable[[RunEvent], None]) -> None:
        self._shown = shown

    def __call__(self, event: RunEvent) -> None:
        self._shown(event)
        if event.kind == "run ended" and event.run.status == "interrupted":
            message(
                f"Run {event.run.id} was interrupted and is recorded as such; finished steps are "
                "remembered."
            )


def progress() -> AbstractContextManager[Callable[[RunEvent], None]]:
    """What shows a run while it goes on: a live tree on a terminal, plain lines elsewhere."""
    from clewline.cli import live

    return live.tree() if sys.stderr.isatty() and not Mode.json else live.lines()


def show(data: dict[str, Any]) -> None:
    """What came of the run."""
    out = console()
    out.print(f"run {data['id']} {data['status']} in {data['wall_s']:.2f} s", markup=False)
    for name, value in data["metrics"].items():
        out.print(f"  {name} {value:.6g}", markup=False)
    out.print(f"  clewline runs show {data['id']}", markup=False)
