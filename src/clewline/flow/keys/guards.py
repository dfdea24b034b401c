"""What must still hold for an earlier walk to be right."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import Any

from clewline.flow.keys.object_content import GuardWalk
from clewline.flow.keys.source_files import stamp_of
from clewline.flow.values.pieces import Undigestible, framed

MISSING = object()
"""Stands where a name is unbound or a cell is empty."""


@dataclass(slots=True)
class Guards:
    """Everything that a walk met, as it was then; checked before the walk is used again."""

    bindings: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)
    cells: list[tuple[types.CellType, Any]] = field(default_factory=list)
    functions: list[tuple[types.FunctionType, tuple[Any, ...]]] = field(default_factory=list)
    classes: list[tuple[type, dict[str, Any]]] = field(default_factory=list)
    values: list[tuple[Any, bytes]] = field(default_factory=list)
    files: list[tuple[str, tuple[int, int] | None]] = field(default_factory=list)

    def hold(self) -> bool:
        """Whether everything that was met is still what it was."""
        return (
            all(space.get(name, MISSING) is value for space, name, value in self.bindings)
            and all(cell_content(cell) is value for cell, value in self.cells)
            and all(identical(function_state(fn), state) for fn, state in self.functions)
            and all(unchanged(cls, content) for cls, content in self.classes)
            and all(stamp_of(path) == stamp for path, stamp in self.files)
            and all(fingerprint(value) == piece for value, piece in self.values)
        )


def function_state(fn: types.FunctionType) -> tuple[Any, ...]:
    """What a function holds that can be replaced."""
    keywords = fn.__kwdefaults__ or {}
    return (fn.__code__, fn.__defaults__, *keywords, *keywords.values())


def identical(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether two tuples hold the same objects; keyword names are compared by value."""
    return len(a) == len(b) and all(
        x is y or (isinstance(x, str) and x == y) for x, y in zip(a, b, strict=True)
    )


def unchanged(cls: type, content: dict[str, Any]) -> bool:
    """Whether a class still holds the same objects."""
    now = vars(cls)
    return all(now.get(name, MISSING) is value for name, value in content.items()) and all(
        name in content or name.startswith("__") for name in now
    )


def cell_content(cell: types.CellType) -> Any:
    """What a closure's cell holds, or MISSING while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def fingerprint(value: Any) -> bytes:
    """The content of a value within this process; code in it counts by its address."""
    try:
        return GuardWalk().piece(value)
    except Undigestible:
        return framed("unknown", b"")
