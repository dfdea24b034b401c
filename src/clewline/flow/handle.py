"""What a step call returns inside a pipeline: a promise of its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, Protocol

from clewline.errors import UsageError
from clewline.store.records import Artifact


class Source(Protocol):
    """The step call behind a handle. May be asked from any thread; waits until it is done."""

    label: str  # RUN/NN-name
    name: str  # of the step
    count: int | None  # outputs of a step that returns tuple[…], None for a single one

    def value(self, slot: int) -> Any:
        """A copy of one output that its holder may change."""
        ...

    def artifact(self, slot: int) -> Artifact | None:
        """One output as it is stored, None when it was not."""
        ...


class Handle:
    """
    The output of a step call inside a pipeline.

    Pass it to other steps; call `.value()` when Python itself must look at it.
    The outputs of a step annotated `-> tuple[A, B]` can be unpacked and indexed.
    """

    __slots__ = ("_slot", "_source")

    def __init__(self, source: Source, slot: int | None = None) -> None:
        self._source = source
        self._slot = slot

    def value(self) -> Any:
        """The value itself: a copy of its own, waiting for the step if need be."""
        if self._slot is None and self._source.count is not None:
            return tuple(self._source.value(slot) for slot in range(self._source.count))
        return self._source.value(self._slot or 0)

    def __iter__(self) -> Iterator[Handle]:
        return iter(self._parts())

    def __getitem__(self, index: int) -> Handle:
        return self._parts()[index]

    def __len__(self) -> int:
        return len(self._parts())

    def _parts(self) -> list[Handle]:
        if self._slot is None and self._source.count is not None:
            return [Handle(self._source, slot) for slot in range(self._source.count)]
        raise UsageError(
            f"{self!r} is one value, so it cannot be unpacked, indexed or measured in a pipeline.",
            f"Call `.value()` on it, or annotate the step as `def {self._source.name}(…) -> "
            "tuple[A, B]` when it has several outputs.",
        )

    def __repr__(self) -> str:
        part = "" if self._slot is None else f"[{self._slot}]"
        return f"<handle of {self._source.name}{part}>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self!r} stands for a value that a step makes; it has no attribute {name!r}. "
            f"Call `.value().{name}`, or move this code into a step."
        )


def source_of(handle: Handle) -> tuple[Source, int | None]:
    """The step call behind a handle, and which of its outputs it is (None: all)."""
    return handle._source, handle._slot


def _refuse(self: Handle, *_: object) -> NoReturn:
    raise UsageError(
        f"{self!r} stands for a value that a step makes, so it cannot be computed with or "
        "compared in a pipeline.",
        "Call `.value()` on it, or move this code into a step.",
    )


for _name in ("bool", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "float", "int"):
    setattr(Handle, f"__{_name}__", _refuse)
