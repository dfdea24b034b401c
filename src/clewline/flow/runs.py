"""Reading runs: as they really are, also those whose process has died."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from clewline.errors import NotFound
from clewline.flow import step_log
from clewline.flow.code.snapshot import Snapshot
from clewline.flow.environment import Environment, environment_differences
from clewline.store.digest import Digest
from clewline.store.locks import process_state
from clewline.store.records import Run, SeenFile, StepRun

if TYPE_CHECKING:
    from clewline.store import Store

SHORTEST_PREFIX = 4


class RunDifference(msgspec.Struct, frozen=True):
    """What differs between two runs: name → value in the first and in the second."""

    first: str
    second: str
    params: dict[str, tuple[Any, Any]]
    inputs: dict[str, tuple[Any, Any]]  # path → digest
    metrics: dict[str, tuple[float | None, float | None]]
    code: dict[str, tuple[Any, Any]]  # file → digest
    environment: list[str]
    steps: list[str]  # in words


def list_runs(
    store: Store, *, pipeline: str | None = None, limit: int | None = 50, offset: int = 0
) -> list[Run]:
    """Runs, newest first."""
    equal: dict[str, Any] = {"pipeline": pipeline} if pipeline is not None else {}
    found = store.catalog.find(Run, order="-started", limit=limit, offset=offset, **equal)
    return [as_it_is(store, run) for run in found]


def find_run(store: Store, text: str) -> Run:
    """
    Find a run by its id, or a start of it that no other run has.

    Raises:
        NotFound: No run, or more than one, begins so.
    """
    text = text.removeprefix("run:").partition("/")[0]
    exact = store.catalog.get(Run, text)
    if exact is not None:
        return as_it_is(store, exact)
    found = []
    if len(text) >= SHORTEST_PREFIX:
        found = store.catalog.find(Run, prefix={"id": text}, limit=3)
    if len(found) == 1:
        return as_it_is(store, found[0])
    if found:
        ids = ", ".join(run.id for run in found)
        raise NotFound(f"More than one run begins with {text!r}: {ids} …", "Give more of the id.")
    raise NotFound(
        f"There is no run {text!r}.",
        f"`clewline runs list` shows them; {SHORTEST_PREFIX} or more characters of an id will do.",
    )


def as_it_is(store: Store, run: Run) -> Run:
    """A run that says "running" is running only while its process lives."""
    if run.status != "running":
        return run
    status = "interrupted" if process_state(run.process) == "dead" else "running"
    return replace(run, status=status, metrics=merged_metrics(_steps(store, run)))


def steps_of(store: Store, run: Run) -> list[StepRun]:
    """The step runs of a run, in the order of their calls; those of a dead run are interrupted."""
    steps = _steps(store, run)
    if run.status != "interrupted":
        return steps
    return [
        replace(step, status="interrupted") if step.status == "running" else step for step in steps
    ]


def log_of(store: Store, step: StepRun) -> str:
    """What a step printed: also while it runs, after it was killed, and when it was remembered."""
    if step.logs is not None:
        return store.blobs.get(step.logs).decode("utf-8", "replace")
    if step.cached_from is not None:
        origin = store.catalog.get(StepRun, step.cached_from)
        return log_of(store, origin) if origin is not None else ""
    left = step_log.left_log(store.root, step)
    return left.read_text("utf-8", "replace") if left is not None else ""


def snapshot_of(store: Store, run: Run) -> Snapshot | None:
    """The code of a run."""
    return Snapshot.decode(store.blobs.get(run.snapshot)) if run.snapshot else None


def environment_of(store: Store, run: Run) -> Environment | None:
    """The environment of a run."""
    if run.environment is None:
        return None
    return msgspec.json.decode(store.blobs.get(run.environment), type=Environment)


def inputs_of(store: Store, run: Run) -> dict[str, Digest]:
    """The files and folders that went into a run: absolute path → digest of its content."""
    seen = store.catalog.find(SeenFile, run=run.id, order="path", limit=None)
    return {each.path: each.digest for each in seen}


def compare(store: Store, first: Run, second: Run) -> RunDifference:
    """Say what differs from one run to another."""
    codes = [snapshot_of(store, run) for run in (first, second)]
    environments = [environment_of(store, run) for run in (first, second)]
    old, new = environments
    return RunDifference(
        first=first.id,
        second=second.id,
        params=_moved(
            {"pipeline": first.pipeline, "seed": first.seed, **first.params},
            {"pipeline": second.pipeline, "seed": second.seed, **second.params},
        ),
        inputs=_moved(inputs_of(store, first), inputs_of(store, second)),
        metrics=_moved(first.metrics, second.metrics),
        code=_moved(*({} if code is None else dict(code.files) for code in codes)),
        environment=environment_differences(old, new)
        if old is not None and new is not None
        else [],
        steps=_step_differences(steps_of(store, first), steps_of(store, second)),
    )


def close_dead_runs(store: Store) -> list[str]:
    """
    Record every run whose process has died as interrupted, with all that its steps had said.

    Returns:
        The ids of these runs.
    """
    running = store.catalog.find(Run, status="running", order="started", limit=None)
    dead = [run for run in running if process_state(run.process) == "dead"]
    for run in dead:
        _close(store, run)
    return [run.id for run in dead]


def _close(store: Store, run: Run) -> None:
    steps = [_ended(store, step) for step in _steps(store, run)]
    last = max([run.started, *(step.ended or step.started for step in steps)])
    ended = replace(run, status="interrupted", metrics=merged_metrics(steps), ended=last)
    store.record(*steps, ended)
    step_log.remove(store.root, run.id)


def _ended(store: Store, step: StepRun) -> StepRun:
    if step.status != "running":
        return step
    left = step_log.left_log(store.root, step)
    logs = store.blobs.put_file(left) if left is not None else None
    return replace(step, status="interrupted", logs=logs)


def _steps(store: Store, run: Run) -> list[StepRun]:
    steps = store.catalog.find(StepRun, run=run.id, order="index", limit=None)
    if run.status == "running":
        steps += _unrecorded(store, run, {step.id for step in steps})
    return [
        replace(step, metrics={**step.metrics, **step_log.left_metrics(store.root, step)})
        if step.status == "running"
        else step
        for step in steps
    ]


def _unrecorded(store: Store, run: Run, known: set[str]) -> list[StepRun]:
    """Steps that have said something, in a process killed before their beginning was durable."""
    names = step_log.left_steps(store.root, run.id)
    return [
        StepRun(
            id=f"{run.id}/{name}",
            run=run.id,
            index=int(name.partition("-")[0]),
            name=name.partition("-")[2],
            status="running",
            started=run.started,
        )
        for name in names
        if f"{run.id}/{name}" not in known
    ]


def merged_metrics(steps: list[StepRun]) -> dict[str, float]:
    """The metrics of all steps; of two with one name the later step's counts."""
    return {name: value for step in steps for name, value in step.metrics.items()}


def _moved(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [*old, *(name for name in new if name not in old)]
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _step_differences(old: list[StepRun], new: list[StepRun]) -> list[str]:
    lines = []
    for first, second in zip(old, new, strict=False):
        if first.name != second.name:
            lines.append(f"step {first.index:02d} is {first.name} there and {second.name} here")
            break
        if first.outputs != second.outputs:
            lines.append(f"step {first.index:02d}-{first.name} has other outputs")
        elif first.status != second.status:
            lines.append(f"step {first.index:02d}-{first.name}: {first.status} → {second.status}")
    if len(old) != len(new):
        lines.append(f"{len(old)} steps → {len(new)} steps")
    return lines
