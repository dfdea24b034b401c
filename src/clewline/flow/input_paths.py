"""Resolve `Path` inputs: to the path that was named, or to the copy that a replay restored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clewline.errors import NotFound


@dataclass(frozen=True, slots=True)
class InputPath:
    """A content input: its path as the record names it, and the path to read it from."""

    recorded: str  # absolute
    actual: Path  # absolute


@dataclass(frozen=True)
class InputPaths:
    """
    Resolves paths of inputs from a current directory.

    A replay passes `moved`: the recorded path of each input, and of the project,
    to the restored copy. Then nothing else is found, so that a replay never
    reads a file that the record does not hold.
    """

    directory: Path = field(default_factory=Path.cwd)
    moved: Mapping[str, str] | None = None

    def find(self, path: Path) -> InputPath:
        """
        Resolve a path.

        Raises:
            NotFound: Nothing is there, or a replay has not restored it.
        """
        recorded = os.path.normpath(self.directory / path.expanduser())
        if self.moved is not None:
            return self._find_restored(recorded, self.moved)
        if not os.path.exists(recorded):
            raise NotFound(
                f"The input {str(path)!r} does not exist: there is no {recorded}.",
                "A parameter that is a Path is an input, resolved from the current directory. "
                "Annotate a path to write to as str.",
            )
        return InputPath(recorded, Path(recorded))

    def _find_restored(self, recorded: str, moved: Mapping[str, str]) -> InputPath:
        for old, new in sorted(moved.items(), key=lambda pair: -len(pair[0])):
            for start in (old, new):  # code may name an input from where it runs now
                if recorded == start or recorded.startswith(start + os.sep):
                    rest = recorded[len(start) :]
                    if os.path.exists(new + rest):
                        return InputPath(old + rest, Path(new + rest))
        raise NotFound(
            f"The input {recorded} is not among the inputs of the recorded run.",
            "The code asks for another file than it did then: its path may depend on the "
            "machine, the time or the environment.",
        )
