"""
Replay a run: execute it again from its record, in a fresh folder and process, and compare.

The fresh process is `python -m clewline.flow.replay REQUEST`.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from clewline.errors import CheckFailed, ClewlineError, NotFound, NotSupported
from clewline.flow import values
from clewline.flow.code import snapshot
from clewline.flow.environment import THREAD_VARIABLES, Environment, environment_changes
from clewline.flow.keys.step_key import key_changes
from clewline.flow.params import from_record
from clewline.flow.pipeline_files import find_pipeline, pipelines_of
from clewline.flow.run import execute
from clewline.flow.runs import environment_of, find_run, inputs_of, snapshot_of, steps_of
from clewline.flow.step_arguments import InputPaths
from clewline.flow.step_cache import DECLARED
from clewline.flow.values.difference import describe_difference
from clewline.project import Project, load
from clewline.store import Store
from clewline.store.changes import Change
from clewline.store.digest import Digest
from clewline.store.records import Artifact, CacheEntry, Run, StepRun

RESULT = "result.json"
"""The file beside the request: the error that stopped the run, or null when it finished."""


class ReplayRequest(msgspec.Struct, frozen=True):
    """A recorded run, restored into a folder."""

    root: str
    run: str
    pipeline: str
    params: dict[str, Any]
    seed: int
    moved: dict[str, str]  # recorded path → path of the restored copy
    directory: str  # from which relative paths were resolved


class StepReplay(msgspec.Struct, frozen=True):
    """The outcome of one replayed step."""

    step: str  # NN-name
    verdict: Literal["equal", "differs", "missing", "nothing to compare"]
    compared: int  # artifacts that were compared
    differences: list[str]  # what differs, and by how much


class ReplayCause(msgspec.Struct, frozen=True):
    """
    The likeliest cause of a difference.

    - `unrecorded`: the step depends on something that the record does not hold, see `reason`;
    - `key`: code, parameters or packages of the step differ, see `changes`;
    - `environment`: the environment differs from the record;
    - `unreliable`: everything is as recorded, and the run failed this time;
    - `not deterministic`: everything is as recorded, and the step returned another result.
    """

    kind: Literal["unrecorded", "key", "environment", "unreliable", "not deterministic"]
    reason: str | None = None
    changes: list[Change] = []


class RunReplay(msgspec.Struct, frozen=True):
    """The outcome of a replayed run."""

    run: str
    equal: bool
    artifacts: int  # the number that was compared
    steps: list[StepReplay]
    first: str | None  # the first step that came out differently
    environment: list[Change]  # what differs from the recorded environment
    cause: ReplayCause | None  # of a difference
    error: str | None  # why the run did not finish
    folder: str | None  # where it was executed, if the folder was kept


def replay(
    project: Project,
    store: Store,
    run_id: str,
    *,
    prepare: Callable[[Path], None],
    keep: bool = False,
) -> RunReplay:
    """
    Restore the code and inputs of a run, execute it in a fresh process, compare every artifact.

    The cache is off; hash seed and thread counts are those of the record. The
    project's own store is only read.

    Args:
        run_id: The run, or a unique prefix of its id.
        prepare: Makes the fresh folder with the restored code a project with a
            store and keys of its own.
        keep: Whether to keep the folder.

    Raises:
        NotFound: There is no such run, or it recorded no code.
        NotSupported: The run did not finish, so that there is nothing to compare with,
            or no pipeline of the project made it.
    """
    run = find_run(store, run_id)
    if run.status != "done":
        raise NotSupported(
            f"Run {run.id} is {run.status}, and only a run that is done can be replayed.",
            "Fix it and run it again; `clewline runs show` shows what happened.",
        )
    folder = Path(tempfile.mkdtemp(prefix=f"clewline-replay-{run.id}-"))
    try:
        root = folder / project.root.name
        code = snapshot_of(store, run)
        if code is None:
            raise NotFound(f"Run {run.id} recorded no code.", "Replay a run of `clewline run`.")
        snapshot.restore(code, store.blobs, root)
        steps = steps_of(store, run)
        _require_pipeline(project, run, steps, root)
        moved = {str(project.root): str(root)}
        for number, (path, digest) in enumerate(inputs_of(store, run).items()):
            recorded = Path(path)
            if recorded.is_relative_to(project.root):
                target = root / recorded.relative_to(project.root)
            else:
                target = folder / "inputs" / str(number) / (recorded.name or "root")
            target.parent.mkdir(parents=True, exist_ok=True)
            values.restore(_artifact(store, digest, NotFound), store.blobs, target)
            moved[path] = str(target)
        prepare(root)
        request = ReplayRequest(
            root=str(root),
            run=run.id,
            pipeline=run.pipeline,
            params=run.params,
            seed=run.seed or 0,
            moved=moved,
            directory=input_directory(project, steps),
        )
        error = run_worker(request, folder, environment_of(store, run))
        with Store.open(root / ".clewline", write=False) as fresh:
            return _judge(store, fresh, run, error, str(folder) if keep else None)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _judge(
    store: Store, fresh: Store, run: Run, error: str | None, folder: str | None
) -> RunReplay:
    """Compare every artifact of every step, and find the likeliest cause of a difference."""
    done = fresh.catalog.find(Run, replay_of=run.id, limit=1)
    old = {step.label: step for step in steps_of(store, run)}
    new = {step.label: step for step in (steps_of(fresh, done[0]) if done else [])}
    compared = [compare_steps(store, fresh, step, new.get(label)) for label, step in old.items()]
    environment = environment_changes(
        environment_of(store, run), environment_of(fresh, done[0]) if done else None
    )
    differing = [step.step for step in compared if step.verdict in ("differs", "missing")]
    differing += [label for label in new if label not in old]
    first = differing[0] if differing else None
    cause = None
    if error is not None or first is not None:
        step, again = (old.get(first), new.get(first)) if first is not None else (None, None)
        if step is not None and step.uncacheable and step.uncacheable not in DECLARED:
            cause = ReplayCause("unrecorded", reason=step.uncacheable)
        elif key := _key_changes(store, fresh, step, again):
            cause = ReplayCause("key", changes=key)
        elif environment:
            cause = ReplayCause("environment", changes=environment)
        else:
            cause = ReplayCause("unreliable" if error is not None else "not deterministic")
    return RunReplay(
        run=run.id,
        equal=cause is None,
        artifacts=sum(step.compared for step in compared),
        steps=compared,
        first=first,
        environment=environment,
        cause=cause,
        error=error,
        folder=folder,
    )


def input_directory(project: Project, steps: list[StepRun]) -> str:
    """Return the directory from which the relative paths of a run were resolved."""
    entries = (entry for step in steps for entry in step.inputs.values())
    directories = (each.get("directory") for each in entries if isinstance(each, dict))
    return str(next(filter(None, directories), project.root))


def _require_pipeline(project: Project, run: Run, steps: list[StepRun], root: Path) -> None:
    """Refuse a run of nothing but clewline's own steps, which no pipeline of the project made."""
    if {step.function.partition(".")[0] for step in steps} != {"clewline"}:
        return
    at = dataclasses.replace(project, root=root)
    if any(run.pipeline in names for names in pipelines_of(at).values()):
        return
    how, _, model = run.pipeline.partition("-")
    if how == "import":
        raise NotSupported(
            f"Run {run.id} imported {model!r}. No pipeline made it, so there is nothing to replay.",
            "`clewline models verify` checks its bytes against the seal. "
            "Importing the same file again gives the same version.",
        )
    raise NotSupported(
        f"Run {run.id} registered {model!r} outside of a pipeline. Its training was not "
        "recorded, so it cannot be replayed.",
        "`clewline models verify` checks its bytes against the seal. "
        "Call cl.register within a pipeline to make its runs replayable.",
    )


def _artifact(store: Store, digest: Digest, error: type[ClewlineError] = CheckFailed) -> Artifact:
    artifact = store.catalog.get(Artifact, digest)
    if artifact is None:
        raise error(
            f"The artifact {digest[:12]} is recorded, but the catalog does not hold it.",
            "`clewline doctor` reports what else is missing.",
        )
    return artifact


def run_worker(request: ReplayRequest, folder: Path, recorded: Environment | None) -> str | None:
    """Execute in a fresh process; return the error that stopped it, or None."""
    # The replay has a project of its own; hash seed and thread counts are those of the record.
    left_out = {*THREAD_VARIABLES, "CLEWLINE_PROJECT"}
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    variables["PYTHONHASHSEED"] = "0"
    if recorded is not None:
        kept = recorded.variables
        variables |= {name: kept[name] for name in THREAD_VARIABLES if name in kept}
        if recorded.hash_seed != "random":
            variables["PYTHONHASHSEED"] = recorded.hash_seed
    path, log = folder / "request.json", folder / "output.log"
    path.write_bytes(msgspec.json.encode(request))
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "clewline.flow.replay", str(path)],
            cwd=request.root,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if (result := folder / RESULT).is_file():
        return msgspec.json.decode(result.read_bytes(), type=str | None)
    last = log.read_text("utf-8", "replace").strip().splitlines()[-5:]
    return f"the process ended with status {done.returncode}: {' / '.join(last)}"


# Comparing


def compare_steps(store: Store, fresh: Store, old: StepRun, new: StepRun | None) -> StepReplay:
    """Compare the outputs and files of a step with those that it had when executed again."""
    label, finished = old.label, ("done", "cached")
    if old.status not in finished:
        return StepReplay(label, "nothing to compare", 0, [])
    if new is None or new.status not in finished:
        return StepReplay(label, "missing", 0, [])
    before, after = (
        {f"output {i}": digest for i, digest in enumerate(step.outputs)} | step.files
        for step in (old, new)
    )
    names = dict.fromkeys([*before, *after])
    differences = []
    for name in names:
        first, second = before.get(name), after.get(name)
        if first is None or second is None:
            where = "only in the replay" if first is None else "missing from the replay"
            differences.append(f"{name}: {where}")
        elif first != second:
            distance = describe_difference(_load(store, first), _load(fresh, second))
            differences.append(f"{name}: {distance} ({first[:12]} → {second[:12]})")
    verdict: Any = "differs" if differences else "equal" if names else "nothing to compare"
    return StepReplay(label, verdict, len(names), differences)


def _load(store: Store, digest: Digest) -> Any:
    artifact = _artifact(store, digest)
    if artifact.kind in ("file", "tree", "figure"):
        return {"bytes": artifact.size_bytes, "content": artifact.digest[:12]}
    return values.load(artifact, store.blobs)


def _key_changes(
    store: Store, fresh: Store, old: StepRun | None, new: StepRun | None
) -> list[Change]:
    """Return which parts of a step's key differ, except its inputs."""
    if old is None or new is None or None in (old.key, new.key) or old.key == new.key:
        return []
    sides = []
    for where, step in ((store, old), (fresh, new)):
        entry = where.catalog.get(CacheEntry, step.key)
        parts = msgspec.json.decode(where.blobs.get(entry.parts)) if entry is not None else {}
        sides.append({**parts, "inputs": {}})
    return key_changes(*sides)


# In the fresh process


def _execute(request: ReplayRequest) -> str | None:
    """Execute the run of a request; return the error that stopped it, or None."""
    project = load(Path(request.root))
    try:
        pipeline = find_pipeline(project, request.pipeline)
        with Store.open(project.store_root) as store:
            execute(
                pipeline,
                from_record(pipeline, request.params),
                project=project,
                store=store,
                seed=request.seed,
                cache=False,
                command=f"clewline replay {request.run}",
                paths=InputPaths(Path(request.directory), request.moved),
                replay_of=request.run,
            )
    except ClewlineError as error:
        return error.message
    return None


if __name__ == "__main__":
    path = Path(sys.argv[1])
    error = _execute(msgspec.json.decode(path.read_bytes(), type=ReplayRequest))
    (path.parent / RESULT).write_bytes(msgspec.json.encode(error))
