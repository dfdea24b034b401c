"""What a step call came to: its outputs, as values in hand or as artifacts in the store."""

from __future__ import annotations

import copy
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from clewline.flow import values
from clewline.store.blobs import BlobStore
from clewline.store.records import Artifact

# Kinds whose values can be copied in memory; the others are read from the store.
_COPIED = frozenset({"table", "array", "json", "model"})


class _Nothing:
    """No value is at hand."""


NOTHING = _Nothing()


@dataclass(slots=True)
class StepOutput:
    """One output of a step call."""

    blobs: BlobStore
    artifact: Artifact | None  # None when it was not stored
    held: Any = NOTHING

    def value(self) -> Any:
        """
        A copy that its holder may change.

        Two steps that share an object would see each other's changes to it, and
        the second would compute on something that no digest names.
        """
        if self.artifact is None:
            return self.held
        if self.artifact.kind not in _COPIED:
            return values.load(self.artifact, self.blobs)
        if self.held is NOTHING:
            # Loading a model takes seconds where copying it takes milliseconds.
            self.held = values.load(self.artifact, self.blobs)
        return copy.deepcopy(self.held)


class StepCall:
    """One step call of a run: the source behind its handles."""

    def __init__(self, label: str, name: str, count: int | None) -> None:
        self.label = label
        self.name = name
        self.count = count
        self.future: Future[list[StepOutput]] = Future()

    def value(self, slot: int) -> Any:
        """A copy of one output, when the step is done."""
        return self.future.result()[slot].value()

    def artifact(self, slot: int) -> Artifact | None:
        """One output as it is stored, when the step is done."""
        return self.future.result()[slot].artifact
