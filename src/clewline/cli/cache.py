"""`clewline cache`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cyclopts import App

from clewline.cli.change_text import change_text
from clewline.cli.output import emit, print_lines
from clewline.cli.run import fix_hash_seed

if TYPE_CHECKING:
    from clewline.flow.step_cache import StepPlan

app = App(name="cache", help="Explain which steps would run, and why.")

MARKS = {"hit": "=", "miss": "✗", "unknown": "?", "never": "!"}
WORDS = {
    "hit": "cached",
    "miss": "would run",
    "unknown": "not known yet",
    "never": "always runs",
}


@app.command
def explain(pipeline: str, /, *params: str, seed: int | None = None) -> None:
    """
    Explain which steps the cache holds, without running any.

    Parameters
    ----------
    pipeline
        Name of the pipeline.
    params
        Parameters of the pipeline as key=value, as for `clewline run`.
    seed
        Seed of the run, as for `clewline run`.
    """
    fix_hash_seed()
    from clewline import project as projects
    from clewline.flow.params import parse_params
    from clewline.flow.pipeline_files import find_pipeline
    from clewline.flow.step_cache import plan_cache
    from clewline.store import Store

    project = projects.find()
    found = find_pipeline(project, pipeline)
    given = parse_params(found, params)
    with Store.open(project.store_root, write=False) as store:
        plans = plan_cache(found, given, project=project, store=store, seed=seed)
    emit(plans, lambda plans: print_lines(line for plan in plans for line in _lines(plan)))


def _lines(plan: StepPlan) -> Iterator[str]:
    source = f" from {plan.from_step}" if plan.from_step else ""
    yield f"{MARKS[plan.verdict]} {plan.step} {WORDS[plan.verdict]}{source}"
    for change in plan.changes:
        yield f"    {change_text(change)}"
    for label in plan.depends_on:
        yield f"    it depends on the output of {label}, which would run first"
    if plan.reason is not None:
        yield f"    {plan.reason}"
    if plan.first_call:
        yield "    no earlier call of this step is in the cache"
    elif plan.verdict == "miss" and not plan.changes:
        yield "    its outputs are no longer in the store"
