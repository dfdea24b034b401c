"""Does a run again from what was recorded, in a fresh folder and process, and compares."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from clewline.errors import CheckFailed, NotFound, NotSupported
from clewline.flow import values
from clewline.flow.code import snapshot
from clewline.flow.environment import THREAD_VARIABLES, Environment, environment_differences
from clewline.flow.keys.step_key import key_differences
from clewline.flow.pipeline_files import pipelines_of
from clewline.flow.replay_worker import RESULT, ReplayRequest
from clewline.flow.runs import environment_of, find_run, inputs_of, snapshot_of, steps_of
from clewline.flow.values.difference import describe_difference
from clewline.store import Store
from clewline.store.digest import Digest
from clewline.store.records import Artifact, CacheEntry, Run, StepRun

if TYPE_CHECKING:
    from clewline.project import Project

REGISTER = "clewline.model.register:register"
"""The step of `cl.register`."""

Verdict = Literal["equal", "differs", "missing", "nothing to compare"]


class StepReplay(msgspec.Struct, frozen=True):
    """How one step came out again."""

    step: str  # NN-name
    verdict: Verdict
    compared: int  # artifacts that were compared
    differences: list[str]  # what differs, and by how much


class Replay(msgspec.Struct, frozen=True):
    """A run done again, and what came of it."""

    run: str
    equal: bool
    artifacts: int  # compared, all together
    steps: list[StepReplay]
    first: str | None  # the first step that came out differently
    environment: list[str]  # what differs from the recorded environment
    explanation: str | None  # what may explain the difference
    error: str | None  # why it could not be done to the end
    folder: str | None  # where it was done, when it was kept


def replay(
    project: Project,
    store: Store,
    run_id: str,
    *,
    prepare: Callable[[Path], None],
    keep: bool = False,
) -> Replay:
    """
    Restore the code and inputs of a run, execute it in a fresh process, compare every artifact.

    The cache is off; hash seed and thread counts are those of the record. The
    project's own store is read only.

    Args:
        run_id: The run, or a unique start of its id.
        prepare: Makes the fresh folder, whose code is restored, a project with a
            store and keys of its own.
        keep: Whether the folder stays, to be looked at.

    Raises:
        NotFound: There is no such run, or it recorded no code.
        NotSupported: The run did not end well, so that there is nothing to compare with,
            or no pipeline of the project made it.
    """
    run = find_run(store, run_id)
    if run.status != "done":
        raise NotSupported(
            f"Run {run.id} is {run.status}, and only a run that is done can be replayed.",
            "Mend it and run it again; `clewline runs show` says what happened.",
        )
    folder = Path(tempfile.mkdtemp(prefix=f"clewline-replay-{run.id}-"))
    try:
        return _replay(project, store, run, folder, prepare, keep)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _replay(
    project: Project,
    store: Store,
    run: Run,
    folder: Path,
    prepare: Callable[[Path], None],
    keep: bool,
) -> Replay:
    root = folder / project.root.name
    _restore_code(store, run, root)
    _require_pipeline(project, store, run, root)
    moved = _restore_inputs(project, store, run, root, folder / "inputs")
    prepare(root)
    old = environment_of(store, run)
    steps = steps_of(store, run)
    request = ReplayRequest(
        root=str(root),
        run=run.id,
        pipeline=run.pipeline,
        params=run.params,
        seed=run.seed or 0,
        moved=moved,
        directory=_directory(project, steps),
    )
    error = _run_again(request, folder, old)
    with Store.open(root / ".clewline", write=False) as fresh:
        return _judge(store, fresh, run, error, str(folder) if keep else None)


def _judge(store: Store, fresh: Store, run: Run, error: str | None, folder: str | None) -> Replay:
    """Compare every artifact of every step, and say what may explain a difference."""
    done = fresh.catalog.find(Run, replay_of=run.id, limit=1)
    old_steps, new_steps = steps_of(store, run), steps_of(fresh, done[0]) if done else []
    again = {_label(step): step for step in new_steps}
    compared = [_compare(store, fresh, step, again.get(_label(step))) for step in old_steps]
    old = environment_of(store, run)
    new = environment_of(fresh, done[0]) if done else None
    changes = environment_differences(old, new) if old is not None and new is not None else []
    odd = [step.step for step in compared if step.verdict in ("differs", "missing")]
    odd += [label for label in again if label not in {step.step for step in compared}]
    explanation = None
    if error is not None or odd:
        step = next((each for each in old_steps if odd and _label(each) == odd[0]), None)
        keys = _key_changes(store, fresh, step, again.get(odd[0])) if step is not None else []
        explanation = _explanation(odd[0] if odd else None, step, keys, changes, error)
    return Replay(
        run=run.id,
        equal=explanation is None,
        artifacts=sum(step.compared for step in compared),
        steps=compared,
        first=odd[0] if odd else None,
        environment=changes,
        explanation=explanation,
        error=error,
        folder=folder,
    )


def _label(step: StepRun) -> str:
    return step.id.partition("/")[2]


def _restore_code(store: Store, run: Run, root: Path) -> None:
    code = snapshot_of(store, run)
    if code is None:
        raise NotFound(f"Run {run.id} recorded no code.", "Replay a run made by clewline run.")
    snapshot.restore(code, store.blobs, root)


def _require_pipeline(project: Project, store: Store, run: Run, root: Path) -> None:
    """Refuse a run that registered a model by itself, without a pipeline of the project."""
    steps = steps_of(store, run)
    if [step.function for step in steps] != [REGISTER]:
        return
    at = dataclasses.replace(project, root=root)
    if any(run.pipeline in names for names in pipelines_of(at).values()):
        return
    how, _, model = run.pipeline.partition("-")
    if how == "import":
        raise NotSupported(
            f"Run {run.id} imported {model!r}: no pipeline made it, and there is nothing to do "
            "again.",
            "`clewline models verify` holds its bytes against the seal; "
            "imported again, the same file is the same version.",
        )
    raise NotSupported(
        f"Run {run.id} registered {model!r} outside of a pipeline: what trained it was not "
        "recorded, and cannot be done again.",
        "`clewline models verify` holds its bytes against the seal. "
        "Call cl.register within a pipeline, and its runs can be replayed.",
    )


def _restore_inputs(
    project: Project, store: Store, run: Run, root: Path, aside: Path
) -> dict[str, str]:
    """Put each recorded input in its place; recorded path → where it is now."""
    moved = {str(project.root): str(root)}
    for number, (path, digest) in enumerate(inputs_of(store, run).items()):
        recorded = Path(path)
        if recorded.is_relative_to(project.root):
            target = root / recorded.relative_to(project.root)
        else:
            target = aside / str(number) / (recorded.name or "root")
        _restore_input(store, digest, target)
        moved[path] = str(target)
    return moved


def _restore_input(store: Store, digest: Digest, target: Path) -> None:
    artifact = store.catalog.get(Artifact, digest)
    if artifact is None:
        raise NotFound(
            f"The input {digest[:12]} of the run is not in the store.",
            "`clewline doctor` says what else is missing.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    values.restore(artifact, store.blobs, target)


def _directory(project: Project, steps: list[StepRun]) -> str:
    """The directory that relative paths in the code were resolved from."""
    for step in steps:
        for entry in step.inputs.values():
            if isinstance(entry, dict) and "directory" in entry:
                return str(entry["directory"])
    return str(project.root)


def _run_again(request: ReplayRequest, folder: Path, recorded: Environment | None) -> str | None:
    """Execute in a fresh process; what stopped it, None when it came to its end."""
    asked = folder / "request.json"
    asked.write_bytes(msgspec.json.encode(request))
    log = folder / "output.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "clewline.flow.replay_worker", str(asked)],
            cwd=request.root,
            env=_variables(recorded),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    result = folder / RESULT
    if result.is_file():
        return msgspec.json.decode(result.read_bytes(), type=str | None)
    told = log.read_text("utf-8", "replace").strip().splitlines()[-5:]
    return f"the process ended with status {done.returncode}: {' / '.join(told)}"


def _variables(recorded: Environment | None) -> dict[str, str]:
    """Our environment, with hash seed and thread counts of the record."""
    left_out = {*THREAD_VARIABLES, "CLEWLINE_PROJECT"}  # the replay has a project of its own
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    kept["PYTHONHASHSEED"] = "0"
    if recorded is None:
        return kept
    if recorded.hash_seed != "random":
        kept["PYTHONHASHSEED"] = recorded.hash_seed
    known = {
        name: recorded.variables[name] for name in THREAD_VARIABLES if name in recorded.variables
    }
    return {**kept, **known}


def _compare(store: Store, fresh: Store, old: StepRun, new: StepRun | None) -> StepReplay:
    label = _label(old)
    if old.status not in ("done", "cached"):
        return StepReplay(label, "nothing to compare", 0, [])
    if new is None or new.status not in ("done", "cached"):
        return StepReplay(label, "missing", 0, ["it was not done again"])
    pairs = list(_pairs(old, new))
    told = [_difference(store, fresh, *pair) for pair in pairs if pair[1] != pair[2]]
    if told:
        return StepReplay(label, "differs", len(pairs), told)
    return StepReplay(label, "equal" if pairs else "nothing to compare", len(pairs), [])


def _pairs(old: StepRun, new: StepRun) -> list[tuple[str, Digest | None, Digest | None]]:
    """What both made: name, digest then, digest now."""
    count = max(len(old.outputs), len(new.outputs))
    pairs: list[tuple[str, Digest | None, Digest | None]] = [
        (f"output {i}" if count > 1 else "output", _at(old.outputs, i), _at(new.outputs, i))
        for i in range(count)
    ]
    names = [*old.files, *(name for name in new.files if name not in old.files)]
    return pairs + [(name, old.files.get(name), new.files.get(name)) for name in names]


def _at(digests: list[Digest], index: int) -> Digest | None:
    return digests[index] if index < len(digests) else None


def _difference(
    store: Store, fresh: Store, name: str, old: Digest | None, new: Digest | None
) -> str:
    if old is None or new is None:
        return f"{name}: {'only in the replay' if old is None else 'not made again'}"
    pair = [_loaded(where, digest) for where, digest in ((store, old), (fresh, new))]
    told = describe_difference(*pair)
    return f"{name}: {told} ({old[:12]} → {new[:12]})"


def _loaded(store: Store, digest: Digest) -> Any:
    artifact = store.catalog.get(Artifact, digest)
    if artifact is None:
        raise CheckFailed(
            f"The artifact {digest[:12]} is recorded, and the catalog does not hold it.",
            "`clewline doctor` says what else is missing.",
        )
    if artifact.kind in ("file", "tree", "figure"):
        return {"bytes": artifact.size_bytes, "content": artifact.digest[:12]}
    return values.load(artifact, store.blobs)


def _explanation(
    first: str | None, old: StepRun | None, keys: list[str], changes: list[str], error: str | None
) -> str:
    where = first or "The pipeline"
    if old is not None and old.uncacheable and "declared" not in old.uncacheable:
        return f"{where} depends on what the record does not hold: {old.uncacheable}."
    if keys:
        return f"What {where} depends on is not what it was: {'; '.join(keys[:3])}."
    if changes:
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        return (
            f"The environment differs from the record, which may explain what {where} did: "
            f"{changes[0]}{more}."
        )
    if error is not None:
        return f"The environment is the recorded one, so {where} does not always succeed."
    return (
        f"The environment is the recorded one, so {where} does not give the same result twice: "
        "look for a generator without a seed, the time, threads that race, or the order of a set."
    )


def _key_changes(store: Store, fresh: Store, old: StepRun, new: StepRun | None) -> list[str]:
    """Which parts of a step's key are not what they were, inputs left out."""
    if new is None or old.key is None or new.key is None or old.key == new.key:
        return []
    parts = [_key_parts(where, step.key) for where, step in ((store, old), (fresh, new))]
    told = key_differences(*({**each, "inputs": {}} for each in parts))
    return [line for line in told if line]


def _key_parts(store: Store, key: str | None) -> dict[str, Any]:
    entry = store.catalog.get(CacheEntry, key)
    if entry is None:
        return {}
    parts: dict[str, Any] = msgspec.json.decode(store.blobs.get(entry.parts))
    return parts
