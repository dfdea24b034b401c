"""Read runs from the store, including those that are going on or whose process has died."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from clewline.flow import step_log
from clewline.flow.code.snapshot import Snapshot
from clewline.flow.environment import Environment, environment_changes
from clewline.store import ref
from clewline.store.changes import Change, changes
from clewline.store.digest import Digest
from clewline.store.locks import process_state
from clewline.store.records import Run, SeenFile, StepRun
from clewline.store.run_search import RunFilter, RunOrder, search_runs

if TYPE_CHECKING:
    from clewline.store import Store


ALL_RUNS = RunFilter()
NEWEST_FIRST = RunOrder()


class RunDifference(msgspec.Struct, frozen=True):
    """What differs between two runs."""

    first: str
    second: str
    params: list[Change]
    inputs: list[Change]  # path → digest
    metrics: list[Change]
    code: list[Change]  # file → digest
    environment: list[Change]
    steps: list[Change]  # NN-name → status and outputs


def list_runs(
    store: Store,
    where: RunFilter = ALL_RUNS,
    *,
    order: RunOrder = NEWEST_FIRST,
    limit: int | None = 50,
    offset: int = 0,
) -> list[Run]:
    """
    Return runs that match, newest first, or sorted by a parameter or a metric.

    Raises:
        UsageError: There is no such status, or there are too many conditions.
    """
    ids = search_runs(
        store.catalog, where, order, limit=-1 if limit is None else limit, offset=offset
    )
    found = (store.catalog.get(Run, each) for each in ids)
    return [with_live_status(store, run) for run in found if run is not None]


def find_run(store: Store, text: str) -> Run:
    """
    Return a run by its id, or by a beginning that no other run shares.

    Raises:
        UsageError: Several runs begin so.
        NotFound: No run begins so.
    """
    run_id = text.removeprefix("run:").partition("/")[0]
    return with_live_status(store, ref.find_run(store.catalog, run_id))


def with_live_status(store: Store, run: Run) -> Run:
    """Return a run as it really is: a recorded "running" holds only while its process lives."""
    if run.status != "running":
        return run
    status = "interrupted" if process_state(run.process) == "dead" else "running"
    return replace(run, status=status, metrics=merged_metrics(_steps(store, run)))


def steps_of(store: Store, run: Run) -> list[StepRun]:
    """Return the step runs of a run in call order; running steps of a dead run are interrupted."""
    is_dead = run.status == "interrupted"
    return [
        replace(step, status="interrupted") if is_dead and step.status == "running" else step
        for step in _steps(store, run)
    ]


def log_of(store: Store, step: StepRun) -> str:
    """Return what a step printed: also while it runs, after it was killed, and if it is cached."""
    if step.logs is not None:
        return store.blobs.get(step.logs).decode("utf-8", "replace")
    if step.cached_from is not None:
        origin = store.catalog.get(StepRun, step.cached_from)
        return log_of(store, origin) if origin is not None else ""
    left = step_log.log_on_disk(store.root, step)
    return left.read_text("utf-8", "replace") if left is not None else ""


def snapshot_of(store: Store, run: Run) -> Snapshot | None:
    """Return the code of a run."""
    return Snapshot.decode(store.blobs.get(run.snapshot)) if run.snapshot else None


def environment_of(store: Store, run: Run) -> Environment | None:
    """Return the environment of a run."""
    if run.environment is None:
        return None
    return msgspec.json.decode(store.blobs.get(run.environment), type=Environment)


def inputs_of(store: Store, run: Run) -> dict[str, Digest]:
    """Return the files and folders that a run read: absolute path → digest of the content."""
    seen = store.catalog.find(SeenFile, run=run.id, order="path", limit=None)
    return {each.path: each.digest for each in seen}


def compare_runs(store: Store, first: Run, second: Run) -> RunDifference:
    """Return what differs from one run to another."""
    both = (first, second)
    params = ({"pipeline": run.pipeline, "seed": run.seed, **run.params} for run in both)
    codes = (snapshot_of(store, run) for run in both)
    steps = [{step.label: step for step in steps_of(store, run)} for run in both]
    outputs = ({label: step.outputs for label, step in side.items()} for side in steps)
    statuses = ({label: step.status for label, step in side.items()} for side in steps)
    return RunDifference(
        first=first.id,
        second=second.id,
        params=changes("parameter", *params),
        inputs=changes("input", *(inputs_of(store, run) for run in both)),
        metrics=changes("metric", first.metrics, second.metrics),
        code=changes("file", *(dict(code.files) if code else {} for code in codes)),
        environment=environment_changes(*(environment_of(store, run) for run in both)),
        steps=[*changes("step", *statuses), *changes("outputs of step", *outputs)],
    )


def close_dead_runs(store: Store) -> list[str]:
    """
    Record every run whose process has died as interrupted, with what its steps had recorded.

    Returns:
        The ids of these runs.
    """
    running = store.catalog.find(Run, status="running", order="started", limit=None)
    dead = [run for run in running if process_state(run.process) == "dead"]
    for run in dead:
        steps = []
        for step in _steps(store, run):
            if step.status == "running":
                left = step_log.log_on_disk(store.root, step)
                logs = store.blobs.put_file(left) if left is not None else None
                step = replace(step, status="interrupted", logs=logs)
            steps.append(step)
        last = max([run.started, *(step.ended or step.started for step in steps)])
        ended = replace(run, status="interrupted", metrics=merged_metrics(steps), ended=last)
        store.record(*steps, ended)
        step_log.remove_logs(store.root, run.id)
    return [run.id for run in dead]


def merged_metrics(steps: list[StepRun]) -> dict[str, float]:
    """Return the metrics of all steps; if two share a name, the later step's counts."""
    return {name: value for step in steps for name, value in step.metrics.items()}


def _steps(store: Store, run: Run) -> list[StepRun]:
    steps = store.catalog.find(StepRun, run=run.id, order="index", limit=None)
    if run.status == "running":
        # Steps that have written something, in a process killed before they were recorded.
        known = {step.id for step in steps}
        for name in step_log.steps_on_disk(store.root, run.id):
            index, _, step_name = name.partition("-")
            if (id_ := f"{run.id}/{name}") not in known:
                steps.append(
                    StepRun(
                        id=id_,
                        run=run.id,
                        index=int(index),
                        name=step_name,
                        status="running",
                        started=run.started,
                    )
                )
    return [
        replace(step, metrics={**step.metrics, **step_log.metrics_on_disk(store.root, step)})
        if step.status == "running"
        else step
        for step in steps
    ]
