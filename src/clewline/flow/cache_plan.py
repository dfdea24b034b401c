"""What a run would do, told without running it: hits, misses, and which part of a key changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from clewline.errors import CheckFailed, ClewlineError
from clewline.flow import error_report, step_arguments, values
from clewline.flow.context import building
from clewline.flow.definition import PipelineDefinition, Step
from clewline.flow.handle import Handle
from clewline.flow.input_paths import InputPath, InputPaths
from clewline.flow.keys.step_key import StepKey, key_differences
from clewline.flow.outcome import StepOutput
from clewline.flow.run import complete
from clewline.flow.step_arguments import Arguments
from clewline.flow.step_cache import key_of, look_up, why_never
from clewline.store.digest import Digest, digest_bytes, digest_file
from clewline.store.records import Artifact, CacheEntry

if TYPE_CHECKING:
    from clewline.project import Project
    from clewline.store import Store

COMPARED = 20
"""How many earlier calls of a step function the nearest is looked for among."""


class StepPlan(msgspec.Struct, frozen=True):
    """What would become of one step call."""

    step: str  # NN-name
    verdict: Literal["hit", "miss", "unknown", "never"]
    reasons: list[str]  # which part changed, what is not known yet, why it is never remembered
    from_step: str | None = None  # of a hit: the step run whose outputs would be taken


def plan_cache(
    pipeline: PipelineDefinition,
    params: Mapping[str, Any],
    *,
    project: Project,
    store: Store,
    seed: int | None = None,
    places: InputPaths | None = None,
) -> list[StepPlan]:
    """
    Tell which steps of a run would be hits, as far as that is known without executing.

    A step that follows a miss is unknown: should the earlier step make the same
    outputs as before, it would be a hit. Writes nothing into the store.

    Raises:
        CheckFailed: The pipeline itself raised.
    """
    engine = Forecaster(project, store, seed or 0, places or InputPaths())
    given = {
        name: engine.located(value) for name, value in complete(pipeline, params, seed).items()
    }
    try:
        with building(engine):
            pipeline.fn(**given)
    except NotKnown as stopped:
        engine.found.append(StepPlan("…", "unknown", [str(stopped)]))
    except ClewlineError:
        raise
    except Exception as error:
        raise _failure(pipeline, project, error) from error
    return engine.found


def _failure(pipeline: PipelineDefinition, project: Project, error: Exception) -> CheckFailed:
    told = error_report.render(error_report.describe(error, project.root))
    return CheckFailed(
        f"The pipeline {pipeline.name!r} raised {told}",
        "A forecast executes the pipeline's own lines, and no step. A run would raise this too.",
    )


class NotKnown(BaseException):
    """
    The pipeline looks at a value that no step has made yet.

    No Exception, so that a pipeline that catches errors does not go on with it.
    """


class NotYet:
    """The source behind the handles of a step that would run."""

    def __init__(self, label: str, name: str, count: int | None) -> None:
        self.label, self.name, self.count = label, name, count

    def value(self, slot: int) -> NoReturn:
        """Stop the forecast."""
        raise NotKnown(
            f"the pipeline looks at the value of {self.label}, which would run; what follows "
            "depends on it"
        )

    def artifact(self, slot: int) -> Artifact | None:
        """Not known."""
        return None


class Remembered:
    """The source behind the handles of a hit."""

    def __init__(self, label: str, name: str, count: int | None, outputs: list[StepOutput]) -> None:
        self.label, self.name, self.count = label, name, count
        self._outputs = outputs

    def value(self, slot: int) -> Any:
        """The remembered value."""
        return self._outputs[slot].value()

    def artifact(self, slot: int) -> Artifact | None:
        """The remembered output."""
        return self._outputs[slot].artifact


class Nowhere:
    """Takes bytes, keeps none, and gives their digest."""

    def put(self, data: bytes) -> Digest:
        """The digest of bytes."""
        return digest_bytes(data)

    def put_file(self, path: Path) -> Digest:
        """The digest of a file."""
        return digest_file(path)


class Forecaster:
    """An engine that looks keys up and executes nothing."""

    def __init__(self, project: Project, store: Store, seed: int, places: InputPaths) -> None:
        self.found: list[StepPlan] = []
        self._project = project
        self._store = store
        self._seed = seed
        self._places = places

    def call(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle:
        """Look one step call up."""
        label = f"{len(self.found):02d}-{step.name}"
        given = step_arguments.describe(step, args, kwargs, self)
        key = key_of(step, given, self._project.root, self._seed)
        hit = look_up(self._store, key)
        if hit is not None:
            entry, artifacts = hit
            outputs = [StepOutput(self._store.blobs, artifact) for artifact in artifacts]
            self.found.append(StepPlan(label, "hit", [], entry.step_run))
            return Handle(Remembered(label, step.name, step.count, outputs))
        self.found.append(self._miss(label, step, given, key))
        return Handle(NotYet(label, step.name, step.count))

    def keep(self, value: Any) -> Artifact:
        """What a value would be stored as; its bytes are let go."""
        return values.save(value, Nowhere())

    def keep_path(self, path: Path) -> tuple[InputPath, Artifact]:
        """What a file or folder would be stored as; its bytes are let go."""
        place = self._places.find(path)
        return place, self.keep(place.actual)

    def located(self, value: Any) -> Any:
        """A parameter with its paths made absolute, as a run gives them."""
        if isinstance(value, Path):
            return self._places.find(value).actual
        if type(value) in (list, tuple):
            return type(value)(self.located(each) for each in value)
        return value

    def _miss(self, label: str, step: Step, given: Arguments, key: StepKey) -> StepPlan:
        never = why_never(step)
        if never is None and given.unkept:
            waits = sorted({self._origin(given, name) for name in given.unkept})
            return StepPlan(
                label, "unknown", [f"it depends on what {name} makes" for name in waits]
            )
        if never is not None or key.uncacheable is not None:
            return StepPlan(label, "never", [never or str(key.uncacheable)])
        return StepPlan(label, "miss", self._changes(step, key))

    def _origin(self, given: Arguments, name: str) -> str:
        return str(given.record[name]["from"]).partition("#")[0]

    def _changes(self, step: Step, key: StepKey) -> list[str]:
        """The parts that differ from the nearest of the latest keys of the same function."""
        earlier = self._store.catalog.find(
            CacheEntry, function=step.function, order="-created", limit=COMPARED
        )
        new = msgspec.json.decode(msgspec.json.encode(key.parts))
        told = [key_differences(self._parts(entry), new) for entry in earlier]
        if not told:
            return ["no earlier call of this step is remembered"]
        return min(told, key=len) or ["its outputs are no longer in the store"]

    def _parts(self, entry: CacheEntry) -> dict[str, Any]:
        parts: dict[str, Any] = msgspec.json.decode(self._store.blobs.get(entry.parts))
        return parts
