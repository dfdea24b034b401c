"""The step cache: find the outputs of an earlier step call with the same key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clewline.flow.keys.step_key import StepKey, function_parts, step_key
from clewline.flow.step import Step
from clewline.flow.step_arguments import StepArguments
from clewline.store.digest import digest_bytes
from clewline.store.records import Artifact, CacheEntry

if TYPE_CHECKING:
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
