"""`clewline replay`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clewline.cli.change_text import change_text
from clewline.cli.output import emit, print_lines, print_message
from clewline.errors import NotFound

if TYPE_CHECKING:
    from clewline.flow.replay import ReplayCause, RunReplay

MARKS = {"equal": "✓", "differs": "✗", "missing": "✗", "nothing to compare": "·"}


def replay(target: str, /, *, keep: bool = False) -> None:
    """
    Repeat a run or a prediction and compare bit for bit.

    Exit status 0: equal. 1: it differs, and the output says where and by how much.

    Parameters
    ----------
    target
        Id of a run or of a prediction, or a model version, whose run is repeated.
    keep
        Keep the folder in which a run was repeated.
    """
    if "@" in target:
        _replay_run(_run_of_version(target), keep=keep)
        return
    # Prediction ids are UUIDs; run ids are 12 hexadecimal characters, or the first of them.
    is_long = "-" in target or len(target) > 12
    if is_long and "/" not in target and not target.startswith("run:"):
        _replay_prediction(target)
    else:
        _replay_run(target, keep=keep)


def _run_of_version(ref: str) -> str:
    """Return the run that registered a version."""
    from clewline import project as projects
    from clewline.store import Store
    from clewline.store.ref import find_version

    with Store.open(projects.find().store_root, write=False) as store:
        version = find_version(store.catalog, ref)
    if version.run is None:
        raise NotFound(
            f"No run registered {version.ref}: it was imported, or registered by hand.",
            "Replay one of its predictions instead: `clewline predictions list` lists them.",
        )
    return version.run


def _replay_run(run: str, *, keep: bool) -> None:
    from clewline import project as projects
    from clewline.flow import replay
    from clewline.store import Store

    project = projects.find()
    with Store.open(project.store_root, write=False) as store:
        print_message(f"Replaying run {run} in a fresh folder and process …")
        found = replay.replay(project, store, run, prepare=make_project, keep=keep)
    emit(found, lambda found: print_lines(_lines(found)))
    if not found.equal:
        raise SystemExit(1)


def _replay_prediction(prediction: str) -> None:
    from clewline import project as projects
    from clewline.cli.predictions import show_replay
    from clewline.serve import prediction_replay

    found = prediction_replay.replay_prediction(projects.find(), prediction)
    emit(found, show_replay)
    if not found.equal:
        raise SystemExit(1)


def make_project(root: Path) -> None:
    """Make a folder with restored code a project with a store and a sealing key of its own."""
    from clewline.model.seal import make_keys
    from clewline.project import FILE
    from clewline.store import Store

    store = root / ".clewline"
    Store.create(store).close()
    public = make_keys(store / "keys" / "seal.key")
    (root / FILE).write_text(
        f'[project]\nname = "{root.name}"\nid = "{secrets.token_hex(8)}"\n\n'
        f'[keys]\npublic = "{public}"\n',
        encoding="utf-8",
    )


def _lines(found: RunReplay) -> Iterator[str]:
    for step in found.steps:
        count = f" ({step.compared} artifacts)" if step.compared > 1 else ""
        yield f"{MARKS[step.verdict]} {step.step} {step.verdict}{count}"
        yield from (f"    {line}" for line in step.differences)
    if found.error:
        yield f"The run did not finish: {found.error}"
    if found.cause is None:
        yield f"The replay of run {found.run} is equal: {found.artifacts} artifacts, bit for bit."
    else:
        first = f", first in step {found.first}" if found.first else ""
        cause = cause_text(found.cause, found.first or "the pipeline")
        yield f"The replay of run {found.run} differs{first}. {cause}"
        yield from (f"  {change_text(change)}" for change in found.environment[:10])
    if found.folder:
        yield f"The replay is in {found.folder}"


def cause_text(cause: ReplayCause, where: str) -> str:
    """Return the likeliest cause of a difference in words."""
    if cause.kind == "unrecorded":
        return f"The record does not hold everything that {where} depends on: {cause.reason}."
    if cause.kind == "key":
        changes = "; ".join(map(change_text, cause.changes[:3]))
        return f"The dependencies of {where} have changed: {changes}."
    if cause.kind == "environment":
        more = f" (and {len(cause.changes) - 1} more)" if len(cause.changes) > 1 else ""
        return (
            "The environment differs from the record, which may explain the difference: "
            f"{change_text(cause.changes[0])}{more}."
        )
    if cause.kind == "unreliable":
        return f"The environment equals the record, so {where} does not always succeed."
    return (
        f"The environment equals the record, so {where} does not return the same result twice: "
        "look for a generator without a seed, the time, threads that race, or the order of a set."
    )
