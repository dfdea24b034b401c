"""Run a sample of cached steps again, and measure how often the cache would answer wrongly."""

from __future__ import annotations

import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import msgspec

from clewline.errors import NotFound, UsageError
from clewline.flow.code.origin import FOREIGN_FOLDERS
from clewline.flow.replay import ReplayRequest, compare_steps, input_directory, run_worker
from clewline.flow.runs import environment_of, find_run, inputs_of, steps_of
from clewline.project import FILE, Project
from clewline.store import Store
from clewline.store.records import CacheEntry, Run, StepRun

Verdict = Literal["equal", "false hit", "not deterministic", "not rerun"]


class CheckedStep(msgspec.Struct, frozen=True):
    """The outcome of one cached step of the sample."""

    step: str  # RUN/NN-name
    verdict: Verdict
    differences: list[str] = []  # what differs from the cached outputs, and by how much
    reason: str | None = None  # why it was not run again


class CacheCheck(msgspec.Struct, frozen=True):
    """The measured rate of false hits, with its 95 % interval; None if no step was run again."""

    seed: int
    cached: int  # steps in the cache
    steps: list[CheckedStep]
    false_hits: int
    rerun: int  # deterministic steps that were run again
    rate: float | None
    interval: tuple[float, float] | None


def check_cache(
    project: Project,
    store: Store,
    *,
    share: float,
    seed: int,
    prepare: Callable[[Path], None],
) -> CacheCheck:
    """
    Execute a random sample of cached steps, and compare what they return with the cache.

    The pipeline of each step is executed by a fresh process, in a copy of the project
    as it is now, with the parameters, the seed, the hash seed and the thread counts of
    its record. A step whose key has changed is not compared: the cache would not be
    asked for it. One that differs is run a second time, which tells a step that is not
    deterministic from a false hit. The store is only read. The copy holds every file of the
    project, because a false hit comes of a read that no record has.

    Args:
        share: The part of the cached steps to run, in (0, 1]; at least one is run.
        seed: Chooses the sample. The same seed and cache give the same sample.
        prepare: Makes the copy a project with a store and keys of its own.

    Raises:
        UsageError: The share is not in (0, 1].
        NotFound: The cache is empty.
    """
    if not 0 < share <= 1:
        raise UsageError(f"A sample of {share:.6g} is not in (0, 1].", "Pass, say, --sample 5%.")
    entries = store.catalog.find(CacheEntry, order="key", limit=None)
    # clewline's own steps register models; their keys are the seals.
    entries = [each for each in entries if not each.function.startswith("clewline.")]
    if not entries:
        raise NotFound("The cache holds no steps.", "Run a pipeline with `clewline run` first.")
    sample = random.Random(seed).sample(entries, math.ceil(share * len(entries)))
    runs: dict[str, list[CacheEntry]] = {}
    for entry in sorted(sample, key=lambda each: each.step_run):
        runs.setdefault(entry.step_run.partition("/")[0], []).append(entry)
    steps = [
        checked
        for run, chosen in runs.items()
        for checked in _check_run(project, store, find_run(store, run), chosen, prepare)
    ]
    verdicts = [step.verdict for step in steps]
    wrong, rerun = verdicts.count("false hit"), len(verdicts) - verdicts.count("not rerun")
    rerun -= verdicts.count("not deterministic")
    return CacheCheck(
        seed=seed,
        cached=len(entries),
        steps=steps,
        false_hits=wrong,
        rerun=rerun,
        rate=wrong / rerun if rerun else None,
        interval=wilson_interval(wrong, rerun) if rerun else None,
    )


def wilson_interval(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """
    Return the score interval of a proportion.

    Args:
        hits: From 0 to `trials`.
        trials: At least 1.
        level: The coverage, in (0, 1).

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference
        (JASA 22, 1927).

    >>> tuple(round(bound, 4) for bound in wilson_interval(0, 10))
    (0.0, 0.2775)
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, scale = hits / trials, 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def _check_run(
    project: Project,
    store: Store,
    run: Run,
    entries: list[CacheEntry],
    prepare: Callable[[Path], None],
) -> Iterator[CheckedStep]:
    """Execute a run again, and a second time if a step of the sample came out differently."""
    first = _run_again(project, store, run, entries, prepare)
    if any(step.verdict == "false hit" for step in first):
        second = _run_again(project, store, run, entries, prepare)
    else:
        second = first
    for one, other in zip(first, second, strict=True):
        is_steady = one.verdict != "false hit" or one.differences == other.differences
        yield one if is_steady else msgspec.structs.replace(one, verdict="not deterministic")


def _run_again(
    project: Project,
    store: Store,
    run: Run,
    entries: list[CacheEntry],
    prepare: Callable[[Path], None],
) -> list[CheckedStep]:
    """Execute a run in a copy of the project, and compare each step that has its key again."""
    folder = Path(tempfile.mkdtemp(prefix=f"clewline-check-{run.id}-"))
    try:
        root = folder / project.root.name
        ignored = shutil.ignore_patterns(*FOREIGN_FOLDERS, FILE)
        shutil.copytree(project.root, root, symlinks=True, ignore=ignored)
        prepare(root)
        outside = {path: path for path in inputs_of(store, run)}
        inside = {path for path in outside if Path(path).is_relative_to(project.root)}
        steps = steps_of(store, run)
        request = ReplayRequest(
            root=str(root),
            run=run.id,
            pipeline=run.pipeline,
            params=run.params,
            seed=run.seed or 0,
            moved={path: path for path in outside.keys() - inside} | {str(project.root): str(root)},
            directory=input_directory(project, steps),
        )
        error = run_worker(request, folder, environment_of(store, run))
        with Store.open(root / ".clewline", write=False) as fresh:
            done = fresh.catalog.find(Run, replay_of=run.id, limit=1)
            again = steps_of(fresh, done[0]) if done else []
            old = {step.id: step for step in steps}
            return [_compare(store, fresh, each, old, again, error) for each in entries]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compare(
    store: Store,
    fresh: Store,
    entry: CacheEntry,
    old: dict[str, StepRun],
    again: list[StepRun],
    error: str | None,
) -> CheckedStep:
    label = entry.step_run
    before = old[label]
    for step in again:
        if step.key == entry.key and step.status in ("done", "cached"):
            found = compare_steps(store, fresh, before, step)
            verdict: Verdict = "false hit" if found.verdict == "differs" else "equal"
            return CheckedStep(label, verdict, found.differences)
    same = next((step for step in again if step.label == before.label), None)
    if same is not None and same.uncacheable:
        reason = f"it is not cached any more: {same.uncacheable}"
    elif error is not None:
        reason = f"its run did not get there: {error}"
    else:
        reason = "its code, inputs or packages have changed, so the cache is not asked for it"
    return CheckedStep(label, "not rerun", reason=reason)
