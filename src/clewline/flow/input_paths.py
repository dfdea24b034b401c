"""Where `Path` inputs lie: where they were named, or where a replay has put them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clewline.errors import NotFound


@dataclass(frozen=True, slots=True)
class InputPath:
    """A content input: its path as the record names it, and where its content is read."""

    recorded: str  # absolute
    actual: Path  # absolute


@dataclass(frozen=True)
class InputPaths:
    """
    Resolves paths of inputs from a current directory.

    A replay gives `moved`: the recorded path of each input, and of the project,
    to where it has been restored. Then nothing else is found, so that a replay
    never reads what the record does not hold.
    """

    directory: Path = field(default_factory=Path.cwd)
    moved: Mapping[str, str] | None = None

    def find(self, path: Path) -> InputPath:
        """
        The place of a path.

        Raises:
            NotFound: Nothing is there.
        """
        recorded = os.path.normpath(self.directory / path.expanduser())
        if self.moved is not None:
            return self._restored(recorded)
        if not os.path.exists(recorded):
            raise NotFound(
                f"The input {str(path)!r} does not exist: there is no {recorded}.",
                "A parameter that is a Path is an input, resolved from the current directory. "
                "For a place to write to, use a parameter annotated str.",
            )
        return InputPath(recorded, Path(recorded))

    def _restored(self, recorded: str) -> InputPath:
        moved = self.moved or {}
        for old, new in sorted(moved.items(), key=lambda pair: -len(pair[0])):
            for start in (old, new):  # code may name an input from where it now runs
                if recorded == start or recorded.startswith(start + os.sep):
                    rest = recorded[len(start) :]
                    if os.path.exists(new + rest):
                        return InputPath(old + rest, Path(new + rest))
        raise NotFound(
            f"The input {recorded} is not among the inputs of the recorded run.",
            "The code asks for another file than it did then: its path may depend on the "
            "machine, the time or the environment.",
        )
