"""A row with the answer that is explained, and what every explanation says."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from clewline.explain.explained_model import ExplainedModel
from clewline.signature.accepted_limits import AcceptedLimits
from clewline.signature.columns import Columns
from clewline.signature.field import Signature, label_name

Scope = Literal["model", "graph"]
"""What is explained: one model on the row that it read, or the graph on the row as it came."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """
    What every explanation says; each kind extends it with a `status` and its findings.

    It holds no time, so that the same question gives the same bytes.
    """

    id: str | None = None  # of its record; None if it has none
    kind: str
    prediction: str | None  # its id; None if a row was explained that no log has
    model: str  # income@3
    package: str | None  # its digest
    revision: str | None  # income#12
    arm: str | None = None  # that a route chose
    scope: Scope = "model"
    nodes: list[str] = []  # of the graph, that changed the row or the answer
    terms: dict[str, Any]  # every option, with its value
    background: str  # where unknown fields come from
    background_rows: int
    seed: int | None = None  # of what was drawn; None if nothing was
    model_rows: int  # that the model answered


class ExplainedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row as its model read it, and the model's answer."""

    model: ExplainedModel
    columns: Columns  # one checked row
    values: dict[str, Any]  # of the row, by field
    answer: dict[str, Any]  # "label", perhaps with "probabilities", or "value"
    seed: int  # for everything that is drawn: the same for the same prediction
    accepted: AcceptedLimits = AcceptedLimits()  # by the revision that answered
    prediction: str | None = None
    package: str | None = None
    revision: str | None = None
    arm: str | None = None
    scope: Scope = "model"
    nodes: tuple[str, ...] = ()

    @property
    def signature(self) -> Signature:
        """The model's fields and output."""
        return self.model.signature

    @property
    def background(self) -> Columns:
        """The rows that unknown fields are taken from."""
        return self.model.background

    @property
    def label_place(self) -> int | None:
        """The place of the answer among the signature's labels; None of a regression."""
        labels = self.signature.output.labels
        if labels is None:
            return None
        answered = label_name(self.answer["label"])
        return [label_name(label) for label in labels].index(answered)

    def facts(self, options: msgspec.Struct, background: str | None = None) -> dict[str, Any]:
        """
        Return the fields of an `Explanation` that do not depend on its kind.

        Args:
            options: That the row is explained with.
            background: Where unknown fields come from; by default from the model's sample.
        """
        return {
            "prediction": self.prediction,
            "model": self.model.ref,
            "package": self.package,
            "revision": self.revision,
            "arm": self.arm,
            "scope": self.scope,
            "nodes": list(self.nodes),
            "terms": msgspec.to_builtins(options, order="sorted"),
            "background": background or self.model.source,
            "background_rows": 0 if background else len(self.background),
        }
