"""What a kind of model says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from clewline.signature.field import Signature

if TYPE_CHECKING:
    from clewline.model.compile.result import Compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is handed over with a model to be registered."""

    train: Any  # the table that it was fitted on, with the target
    test: Any | None = None  # rows that it has not seen
    target: str | None = None  # the column that it predicts
    signature: Signature | None = None  # stated rather than inferred, where a kind takes that
    options: dict[str, Any] = field(default_factory=dict)  # what only some kind knows


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a package, and what its manifest says of them."""

    files: dict[str, bytes]
    signature: Signature
    compiled: Compiled
    notes: list[str]  # for the person who registers
    unstable: tuple[str, ...] = ()
    """Files whose bytes differ each time they are written; the model's own digest stands in."""
    asked: Any = None  # what `cl.evaluate` is to ask, where that is not the model as it was given


class Kind(Protocol):
    """
    A kind of model. The first kind that says that a model is its own gets it.

    `claims` imports no library: a model of one whose library is not imported is not there.
    """

    name: str

    def claims(self, model: Any) -> bool:
        """Say whether a model is of this kind."""
        ...

    def contents(self, model: Any, given: Given) -> Contents:
        """
        Make the files of a package.

        Raises:
            InvalidInput: A table lacks a column of the model's, or holds what has no kind.
            NotSupported: It was not fitted, or has no safe form.
        """
        ...
