"""`clewline cache`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cyclopts import App

from clewline.cli.change_text import change_text
from clewline.cli.output import emit, print_lines, print_message
from clewline.cli.run import fix_hash_seed
from clewline.errors import UsageError

if TYPE_CHECKING:
    from clewline.flow.cache_check import CacheCheck
    from clewline.flow.step_cache import StepPlan

app = App(name="cache", help="Explain and check the step cache.")

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


@app.command
def check(*, sample: str = "5%", seed: int | None = None) -> None:
    """
    Execute a sample of cached steps again, and count false hits.

    Exit status 0: every step that was run again is equal. 1: at least one is a false hit.

    Parameters
    ----------
    sample
        The share of the cached steps to run, such as 5% or 0.05.
    seed
        Chooses the sample; a new one by default. It is printed.
    """
    import secrets

    from clewline import project as projects
    from clewline.cli.replay import make_project
    from clewline.flow.cache_check import check_cache
    from clewline.store import Store

    number = sample.removesuffix("%")
    try:
        share = float(number) / (100 if number != sample else 1)
    except ValueError:
        raise UsageError(f"{sample!r} is not a share.", "Pass, say, --sample 5%.") from None
    project = projects.find()
    with Store.open(project.store_root, write=False) as store:
        chosen = secrets.randbelow(2**32) if seed is None else seed
        print_message(f"Running a sample of {sample} again in copies of the project …")
        found = check_cache(project, store, share=share, seed=chosen, prepare=make_project)
    emit(found, lambda found: print_lines(_check_lines(found)))
    if found.false_hits:
        raise SystemExit(1)


CHECK_MARKS = {"equal": "=", "false hit": "✗", "not deterministic": "?", "not rerun": "·"}


def _check_lines(found: CacheCheck) -> Iterator[str]:
    for step in found.steps:
        yield f"{CHECK_MARKS[step.verdict]} {step.step} {step.verdict}"
        yield from (f"    {line}" for line in step.differences)
        if step.reason is not None:
            yield f"    {step.reason}"
    verdicts = [step.verdict for step in found.steps]
    others = [f"{verdicts.count(name)} {name}" for name in ("not deterministic", "not rerun")]
    yield f"{len(found.steps)} of {found.cached} cached steps, seed {found.seed}: " + ", ".join(
        [f"{verdicts.count('equal')} equal", f"{found.false_hits} false hits", *others]
    )
    if found.rate is None or found.interval is None:
        yield "No step was run again, so no rate is known. Take a larger sample."
        return
    low, high = found.interval
    yield f"Rate of false hits: {found.rate:.2%}, 95 % interval {low:.2%} to {high:.2%} (Wilson)"
    if found.false_hits:
        yield (
            "A step that is a false hit depends on something that its key does not hold. Pass it "
            "as a parameter, a Path if it is a file, or declare @step(cache=False). "
            "`clewline run --no-cache` replaces what the cache holds."
        )
    if "not deterministic" in verdicts:
        yield "A step that is not deterministic needs a seed, or @step(cache=False)."


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
