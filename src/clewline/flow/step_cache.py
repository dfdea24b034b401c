"""The step cache: find the outputs of an earlier step call with the same key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from clewline.errors import CheckFailed, ClewlineError
from clewline.flow import error_report, values
from clewline.flow.context import use_engine
from clewline.flow.handle import Handle, StepCall, StepOutput
from clewline.flow.keys.step_key import StepKey, function_parts, key_changes, step_key
from clewline.flow.params import PipelineDefinition, complete_params
from clewline.flow.step import Step
from clewline.flow.step_arguments import InputPath, InputPaths, StepArguments, locate
from clewline.store.changes import Change
from clewline.store.digest import Digest, digest_bytes, digest_file
from clewline.store.records import Artifact, CacheEntry

if TYPE_CHECKING:
    from clewline.project import Project
    from clewline.store import Store

DECLARED = ("cache=False", "store_output=False")
"""Reasons not to cache a step that its author declared, as `StepRun.uncacheable` has them."""

CacheHit = tuple[CacheEntry, list[Artifact]]


def key_of(step: Step, given: StepArguments, root: Path, run_seed: int) -> StepKey:
    """Return the key of a step call; a key without digest states why the call is not cached."""
    reason = declared_uncacheable(step)
    if reason is None and given.unstored:
        reason = f"its input {given.unstored[0]!r} is not stored"
    if reason is not None:
        return StepKey(digest=None, parts={}, uncacheable=reason)
    env = {name: os.environ.get(name) for name in step.env}
    parts = function_parts(step.fn, root)
    return step_key(parts, given.params, given.inputs, seed=step_seed(step, run_seed), env=env)


def declared_uncacheable(step: Step) -> str | None:
    """Return the declaration that keeps a step out of the cache, or None."""
    if not step.cache:
        return DECLARED[0]
    return None if step.store_output else DECLARED[1]


def step_seed(step: Step, run_seed: int) -> int:
    """Return a step's seed: 32 bits, the most that numpy's global generator takes."""
    return int(digest_bytes(f"{run_seed}:{step.function}".encode())[:8], 16)


def look_up(store: Store, key: StepKey) -> CacheHit | None:
    """Return the cached outputs of a key, if the store still holds all of them."""
    entry = store.catalog.get(CacheEntry, key.digest) if key.digest is not None else None
    if entry is None:
        return None
    artifacts = [store.catalog.get(Artifact, digest) for digest in entry.outputs]
    held = [each for each in artifacts if each is not None and store.blobs.has(each.blob)]
    return (entry, held) if len(held) == len(artifacts) else None


COMPARED_CALLS = 20
"""The number of earlier calls of a step function among which the nearest key is searched."""


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a run would do at one step call.

    A miss has the `changes` from the nearest earlier key, or `first_call`, or neither
    when the outputs are no longer in the store.
    """

    step: str  # NN-name
    verdict: Literal["hit", "miss", "unknown", "never"]
    from_step: str | None = None  # of a hit: the step run that computed the outputs
    changes: list[Change] = []
    first_call: bool = False  # of a miss: no earlier call of the step is in the cache
    depends_on: list[str] = []  # of an unknown: the steps that would run before it
    reason: str | None = None  # of a never: why the step is not cacheable


def plan_cache(
    pipeline: PipelineDefinition,
    params: Mapping[str, Any],
    *,
    project: Project,
    store: Store,
    seed: int | None = None,
    paths: InputPaths | None = None,
) -> list[StepPlan]:
    """
    Plan which steps of a run would hit the cache, without executing any step.

    A step that follows a miss is unknown: if the earlier step produces the same
    outputs as before, it would be a hit. Nothing is written into the store.

    Raises:
        CheckFailed: The pipeline itself raised.
        UsageError: The parameters do not fit.
    """
    engine = _PlanEngine(project, store, seed or 0, paths or InputPaths())
    given = complete_params(pipeline, params, seed)
    located = {name: locate(value, engine.paths.find)[0] for name, value in given.items()}
    try:
        with use_engine(engine):
            pipeline.fn(**located)
    except _OutputUnknown as stop:
        engine.plans.append(StepPlan(step="…", verdict="unknown", depends_on=[stop.label]))
    except ClewlineError:
        raise
    except Exception as error:
        report = error_report.render(error_report.describe(error, project.root))
        raise CheckFailed(
            f"The pipeline {pipeline.name!r} raised {report}",
            "Planning executes the pipeline's own lines, and no step. A run would fail here too.",
        ) from error
    return engine.plans


class _OutputUnknown(BaseException):
    """
    The pipeline reads an output that no step has computed yet.

    It is not an Exception, so that a pipeline that catches errors does not continue.
    """

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


class _UnknownOutput(StepOutput):
    def value(self) -> NoReturn:
        raise _OutputUnknown(self.held)


class _DigestSink:
    """Takes bytes, stores none, and returns their digest."""

    def put(self, data: bytes) -> Digest:
        return digest_bytes(data)

    def put_file(self, path: Path) -> Digest:
        return digest_file(path)


class _PlanEngine:
    """Looks up the key of each step call, and executes nothing."""

    def __init__(self, project: Project, store: Store, seed: int, paths: InputPaths) -> None:
        self.plans: list[StepPlan] = []
        self.paths = paths
        self._project, self._store, self._seed = project, store, seed

    def call(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle:
        label = f"{len(self.plans):02d}-{step.name}"
        given = StepArguments(step, args, kwargs, self)
        key = key_of(step, given, self._project.root, self._seed)
        call = StepCall(label, step.name, step.count)
        hit = look_up(self._store, key)
        if hit is not None:
            entry, artifacts = hit
            call.outputs.set_result([StepOutput(self._store.blobs, each) for each in artifacts])
            self.plans.append(StepPlan(step=label, verdict="hit", from_step=entry.step_run))
        else:
            unknown = _UnknownOutput(self._store.blobs, None, label)
            call.outputs.set_result([unknown] * (step.count or 1))
            self.plans.append(self._miss(label, step, given, key))
        return Handle(call)

    def keep(self, value: Any) -> Artifact:
        """Return the artifact that a value would be stored as."""
        return values.save(value, _DigestSink())

    def keep_path(self, path: Path) -> tuple[InputPath, Artifact]:
        """Return the artifact that a file or folder would be stored as."""
        found = self.paths.find(path)
        return found, self.keep(found.actual)

    def output_ref(self, digest: Digest) -> str | None:
        return None

    def output_of(self, value: Any) -> str | None:
        return None

    def _miss(self, label: str, step: Step, given: StepArguments, key: StepKey) -> StepPlan:
        declared = declared_uncacheable(step)
        sources = {
            str(given.record[name]["from"] or "").partition("#")[0] for name in given.unstored
        }
        if declared is None and (depends_on := sorted(sources - {""})):
            return StepPlan(step=label, verdict="unknown", depends_on=depends_on)
        if reason := declared or key.uncacheable:
            return StepPlan(step=label, verdict="never", reason=reason)
        earlier = self._store.catalog.find(
            CacheEntry, function=step.function, order="-created", limit=COMPARED_CALLS
        )
        new = msgspec.json.decode(msgspec.json.encode(key.parts))
        candidates = [
            key_changes(msgspec.json.decode(self._store.blobs.get(entry.parts)), new)
            for entry in earlier
        ]
        nearest = min(candidates, key=len, default=[])
        return StepPlan(step=label, verdict="miss", changes=nearest, first_call=not candidates)
