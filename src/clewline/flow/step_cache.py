"""Looks a step call up among those that were remembered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clewline.flow.definition import Step
from clewline.flow.keys.step_key import StepKey, function_parts, step_key
from clewline.flow.step_arguments import Arguments
from clewline.store.digest import digest_bytes
from clewline.store.records import Artifact, CacheEntry

if TYPE_CHECKING:
    from clewline.store import Store

DECLARED = "it is declared with"  # begins each reason that the person gave, not we


def key_of(step: Step, given: Arguments, root: Path, run_seed: int) -> StepKey:
    """The key of a step call; one without a digest says why it cannot be remembered."""
    reason = why_never(step)
    if reason is None and given.unkept:
        reason = f"its input {given.unkept[0]!r} is not stored"
    if reason is not None:
        return StepKey(digest=None, parts={}, uncacheable=reason)
    env = {name: os.environ.get(name) for name in step.env}
    parts = function_parts(step.fn, root)
    return step_key(parts, given.params, given.inputs, seed=step_seed(step, run_seed), env=env)


def why_never(step: Step) -> str | None:
    """Why no call of a step is ever remembered; None when they are."""
    if not step.cache:
        return f"{DECLARED} cache=False"
    return None if step.store_output else f"{DECLARED} store_output=False"


def step_seed(step: Step, run_seed: int) -> int:
    """A seed of 32 bits, the most that numpy's global generator takes."""
    return int(digest_bytes(f"{run_seed}:{step.function}".encode())[:8], 16)


def look_up(store: Store, key: StepKey) -> tuple[CacheEntry, list[Artifact]] | None:
    """The remembered outputs of a key, while the store still holds all of them."""
    entry = store.catalog.get(CacheEntry, key.digest) if key.digest is not None else None
    if entry is None:
        return None
    artifacts = [store.catalog.get(Artifact, digest) for digest in entry.outputs]
    held = [each for each in artifacts if each is not None and store.blobs.has(each.blob)]
    return (entry, held) if len(held) == len(artifacts) else None
