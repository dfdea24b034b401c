"""`clewline cache`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from clewline.cli.output import console, emit
from clewline.cli.run import fix_hash_seed

if TYPE_CHECKING:
    from clewline.flow.cache_plan import StepPlan

app = App(name="cache", help="Say what would be a hit or a miss, and why.")

MARKS = {"hit": "=", "miss": "✗", "unknown": "?", "never": "!"}
WORDS = {
    "hit": "remembered",
    "miss": "would run",
    "unknown": "not known yet",
    "never": "always runs",
}


@app.command
def explain(pipeline: str, /, *params: str, seed: int | None = None) -> None:
    """
    Say which steps of a run would be taken from earlier ones, without running it.

    Parameters
    ----------
    pipeline
        The pipeline's name.
    params
        Its parameters as key=value, as for `clewline run`.
    seed
        The run's seed, as for `clewline run`.
    """
    fix_hash_seed()
    from clewline import project as projects
    from clewline.flow.cache_plan import plan_cache
    from clewline.flow.params import parse_params
    from clewline.flow.pipeline_files import find_pipeline
    from clewline.store import Store

    project = projects.find()
    found = find_pipeline(project, pipeline)
    given = parse_params(found, params)
    with Store.open(project.store_root, write=False) as store:
        told = plan_cache(found, given, project=project, store=store, seed=seed)
    emit(told, show)


def show(steps: list[StepPlan]) -> None:
    """A line for each step, then the reasons."""
    out = console()
    for step in steps:
        source = f" from {step.from_step}" if step.from_step else ""
        out.print(f"{MARKS[step.verdict]} {step.step} {WORDS[step.verdict]}{source}", markup=False)
        for reason in step.reasons:
            out.print(f"    {reason}", markup=False)
