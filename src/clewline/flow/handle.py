"""Handles: in a pipeline a step call returns a promise of its outputs, not the outputs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NoReturn

from clewline.errors import UsageError
from clewline.flow import values
from clewline.store.blobs import BlobStore
from clewline.store.records import Artifact

# Kinds that can be copied in memory; values of other kinds are read from the store.
_COPIED = frozenset({"table", "array", "json", "model"})
_NOT_LOADED: Any = object()


@dataclass(slots=True)
class StepOutput:
    """One output of a step call."""

    blobs: BlobStore
    artifact: Artifact | None  # None when it was not stored
    held: Any = _NOT_LOADED

    def value(self) -> Any:
        """
        Return a copy that the caller may change.

        Two steps that share an object would see each other's changes to it, and
        the second would compute on a value that no digest names.
        """
        if self.artifact is None:
            return self.held
        if self.artifact.kind not in _COPIED:
            return values.load(self.artifact, self.blobs)
        if self.held is _NOT_LOADED:
            # Loading a model takes seconds where copying it takes milliseconds.
            self.held = values.load(self.artifact, self.blobs)
        return values.in_canonical_layout(copy.deepcopy(self.held))


class StepCall:
    """One step call of a run; its outputs may be asked for from any thread."""

    def __init__(self, label: str, name: str, count: int | None) -> None:
        self.label = label  # RUN/NN-name
        self.name = name  # of the step
        self.count = count  # outputs of a step that returns tuple[…], None for a single one
        self.outputs: Future[list[StepOutput]] = Future()


class Handle:
    """
    The output of a step call inside a pipeline.

    Pass it to other steps; call `.value()` when Python itself must look at it.
    The outputs of a step annotated `-> tuple[A, B]` can be unpacked and indexed.
    """

    __slots__ = ("_call", "_slot")  # the step call, and which of its outputs; None: all

    def __init__(self, call: StepCall, slot: int | None = None) -> None:
        self._call = call
        self._slot = slot

    def value(self) -> Any:
        """Wait for the step, and return the value itself: a copy of its own."""
        outputs = self._call.outputs.result()
        if self._slot is None and self._call.count is not None:
            return tuple(output.value() for output in outputs)
        return outputs[self._slot or 0].value()

    def __iter__(self) -> Iterator[Handle]:
        return iter(self._parts())

    def __getitem__(self, index: int) -> Handle:
        return self._parts()[index]

    def __len__(self) -> int:
        return len(self._parts())

    def _parts(self) -> list[Handle]:
        if self._slot is None and self._call.count is not None:
            return [Handle(self._call, slot) for slot in range(self._call.count)]
        raise UsageError(
            f"{self!r} is a single value, so it cannot be unpacked, indexed or measured in a "
            "pipeline.",
            f"Call `.value()` on it, or annotate the step as `def {self._call.name}(…) -> "
            "tuple[A, B]` when it has several outputs.",
        )

    def __repr__(self) -> str:
        part = "" if self._slot is None else f"[{self._slot}]"
        return f"<handle of {self._call.name}{part}>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self!r} stands for the output of a step; it has no attribute {name!r}. "
            f"Call `.value().{name}`, or move this code into a step."
        )


def source_of(handle: Handle) -> tuple[StepCall, int | None]:
    """Return the step call behind a handle, and which of its outputs it is (None: all)."""
    return handle._call, handle._slot


def _refuse(self: Handle, *_: object) -> NoReturn:
    raise UsageError(
        f"{self!r} stands for the output of a step, so a pipeline cannot compute with it or "
        "compare it.",
        "Call `.value()` on it, or move this code into a step.",
    )


for _name in ("bool", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "float", "int"):
    setattr(Handle, f"__{_name}__", _refuse)
