"""`clewline run`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clewline.cli.output import Mode, emit, print_lines, print_message
from clewline.formatting import format_duration

if TYPE_CHECKING:
    from clewline.flow.run_recorder import RunEvent


def run(pipeline: str, /, *params: str, seed: int | None = None, cache: bool = True) -> None:
    """
    Run a pipeline of this project, and record the run.

    Parameters
    ----------
    pipeline
        Name of the pipeline, a function with @cl.pipeline in pipelines.py or pipelines/.
    params
        Parameters of the pipeline as key=value.
    seed
        Seed of the run. It also fills a parameter `seed` that is not given.
    cache
        Reuse the outputs of earlier runs where nothing has changed.
    """
    fix_hash_seed()
    from clewline import project as projects
    from clewline.cli import live
    from clewline.cli.runs import run_as_data
    from clewline.flow.params import parse_params
    from clewline.flow.pipeline_files import find_pipeline
    from clewline.flow.run import execute
    from clewline.store import Store

    project = projects.find()
    found = find_pipeline(project, pipeline)
    given = parse_params(found, params)
    progress = live.tree() if sys.stderr.isatty() and not Mode.json else live.lines()
    with Store.open(project.store_root) as store, progress as show_event:

        def listen(event: RunEvent) -> None:
            show_event(event)
            if event.kind == "run ended" and event.run.status == "interrupted":
                print_message(
                    f"Run {event.run.id} was interrupted, and is recorded so. The outputs of its "
                    "finished steps are cached."
                )

        done = execute(
            found,
            given,
            project=project,
            store=store,
            seed=seed,
            cache=cache,
            listener=listen,
            command=shlex.join(["clewline", *sys.argv[1:]]),
        )
        data = run_as_data(store, done)
    emit(data, _show)


def fix_hash_seed() -> None:
    """
    Restart this command with a fixed hash seed.

    The order of sets of strings depends on it, and a running process cannot change
    it. Only the command itself restarts, never a program that imports clewline.
    """
    path = sys.argv[0]
    is_command = Path(path).name in ("clewline", "clewline.exe") or path.endswith(
        os.path.join("cli", "main.py")
    )
    if is_command and "PYTHONHASHSEED" not in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _show(data: dict[str, Any]) -> None:
    print_lines(
        [
            f"run {data['id']} {data['status']} in {format_duration(data['wall_s'])}",
            *(f"  {name} {value:.6g}" for name, value in data["metrics"].items()),
            f"  clewline runs show {data['id']}",
        ]
    )
