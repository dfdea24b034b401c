"""`clewline replay`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from clewline.cli.output import console, emit, message

if TYPE_CHECKING:
    from clewline.flow.replay import Replay

MARKS = {"equal": "✓", "differs": "✗", "missing": "✗", "nothing to compare": "·"}


def replay(what: str, /, *, keep: bool = False) -> None:
    """
    Do a run or a prediction again from what was recorded, and compare bit for bit.

    Exit status 0: equal. 1: it differs, and what is printed says where and by how much.

    Parameters
    ----------
    what
        The id of a run or of a prediction.
    keep
        Keep the folder in which a run was done again.
    """
    if is_prediction(what):
        replay_prediction(what)
    else:
        replay_run(what, keep=keep)


def is_prediction(what: str) -> bool:
    """Prediction ids are UUIDs; run ids are 12 hexadecimal characters, or the start of them."""
    return "/" not in what and ("-" in what or len(what) > 12) and not what.startswith("run:")


def replay_run(run: str, *, keep: bool) -> None:
    """Replay a run."""
    from clewline import project as projects
    from clewline.flow.replay import replay as again
    from clewline.store import Store

    project = projects.find()
    with Store.open(project.store_root, write=False) as store:
        message(f"Replaying run {run} in a fresh folder and process …")
        found = again(project, store, run, prepare=make_project, keep=keep)
    emit(found, show)
    if not found.equal:
        raise SystemExit(1)


def replay_prediction(prediction: str) -> None:
    """Replay a prediction."""
    from clewline import project as projects
    from clewline.cli.predictions import show_replay
    from clewline.serve.prediction_replay import replay as again

    found = again(projects.find(), prediction)
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


def show(found: Replay) -> None:
    """A line for each step, then what it means."""
    out = console()
    for step in found.steps:
        count = f" ({step.compared} artifacts)" if step.compared > 1 else ""
        out.print(f"{MARKS[step.verdict]} {step.step} {step.verdict}{count}", markup=False)
        for line in step.differences:
            out.print(f"    {line}", markup=False)
    if found.error:
        out.print(f"It was not done to the end: {found.error}", markup=False)
    out.print(verdict(found), markup=False)
    for line in found.environment[:10] if not found.equal else []:
        out.print(f"  {line}", markup=False)
    if found.folder:
        out.print(f"Done in {found.folder}", markup=False)


def verdict(found: Replay) -> str:
    """The answer in one sentence."""
    if found.equal:
        return f"Run {found.run} replays to the same: {found.artifacts} artifacts equal."
    where = f", first in step {found.first}" if found.first else ""
    return f"Run {found.run} does not replay to the same{where}. {found.explanation}"
