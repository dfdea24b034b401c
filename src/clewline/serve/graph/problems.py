"""What is wrong with an endpoint's file: every thing at once, each with where it stands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from clewline.errors import InvalidConfig


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    at: str  # path of keys, such as graph.arms.champion; empty for the file itself
    message: str  # what is there, with the value
    fix: str  # what to write


class InvalidEndpoint(InvalidConfig):
    """An endpoint's file that cannot be applied; `problems` holds all that is wrong with it."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        first = problems[0]
        if len(problems) == 1:
            super().__init__(f"{source}: {first.message}", first.fix)
        else:
            listed = "\n".join(f"  {each.message} {each.fix}".rstrip() for each in problems)
            super().__init__(f"{source} has {len(problems)} problems:\n{listed}", None)
        self.args = (source, tuple(problems))
        self.source, self.problems = source, tuple(problems)


class Problems:
    """Gathers what is wrong, in the order in which it is met, each thing once."""

    def __init__(self, found: Iterable[Problem] = ()) -> None:
        self._found: dict[Problem, None] = dict.fromkeys(found)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def add(self, at: str, message: str, fix: str = "") -> None:
        """Enter a problem."""
        self._found.setdefault(Problem(at, message, fix))

    def require_none(self, source: object) -> None:
        """
        Go on only when nothing is wrong.

        Raises:
            InvalidEndpoint: Something is; names all of it.
        """
        if self._found:
            raise InvalidEndpoint(str(source), list(self._found))


def nearest(name: object, known: Iterable[str], prefix: str = "") -> str:
    """
    Name the nearest of some names, or all of them.

    >>> nearest("modle", ["model", "graph"])
    'Did you mean model?'
    >>> nearest("x", ["model", "graph"])
    'Known here: model, graph.'
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    if near:
        return f"Did you mean {prefix}{near[0]}?"
    return f"Known here: {', '.join(names)}." if names else "None is known here."
