"""A revision in memory: loaded, proved on its background sample, ready to answer."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from fairlead.serve import revision as revisions
from fairlead.serve.answers import Renderer
from fairlead.serve.batch import Predictions
from fairlead.serve.cost import Cost
from fairlead.serve.graph import Batch, Node, node_kind
from fairlead.serve.intake import MAX_ROWS, Intake
from fairlead.serve.log import Frame, Part
from fairlead.serve.pool import ModelPool
from fairlead.signature import accepted
from fairlead.signature.check import Checker
from fairlead.store.ids import prediction_ids
from fairlead.store.records import Revision

TRIAL_SIZES = (1, 1, 8, 64, 1, 8, 64)
"""Batch sizes that a revision answers before it goes live, to learn what they cost."""
TRIAL_S = 0.5


class LoadedRevision:
    """Answers batches as one revision of an endpoint says. Free of I/O."""

    def __init__(self, revision: Revision, node: Node, *, max_rows: int = MAX_ROWS) -> None:
        self.revision = revision
        self.ref = revisions.ref(revision)
        self.signature = node.signature
        self.checker = Checker(node.signature, accepted.from_builtins(revision.accepted))
        self.max_rows = max_rows
        self.intake = Intake(self.checker, max_rows=max_rows)
        self.cost = Cost()
        self._node = node
        self._renderer = Renderer(node.signature.output)

    @classmethod
    def load(
        cls, revision: Revision, pool: ModelPool, *, max_rows: int = MAX_ROWS
    ) -> LoadedRevision:
        """
        Load what a revision has pinned, and answer its background rows as a trial.

        Raises:
            NotFound: A package is not there.
            IntegrityError: A package is not what was sealed and pinned.
        """
        pool.pin(revision.packages)
        node = node_kind(revisions.NODE).build(
            revisions.NODE, revision.models[revisions.NODE], pool
        )
        try:
            loaded = cls(revision, node, max_rows=max_rows)
            loaded.try_out()
        except BaseException:
            node.close()
            raise
        return loaded

    def answer(self, rows: list[Any], entities: list[str | None]) -> Predictions:
        """Answer checked rows, in order."""
        checked = self.checker.columns(rows)
        assert not checked.refused, "rows are checked when they are read"
        ids = prediction_ids(len(rows))
        answered = self._node.answer(Batch(checked.columns, ids, entities))
        answers = self._renderer.render(ids, answered, checked.flags)
        return Predictions(ids, answers, answered.model, answered.path)

    def frame(self, predictions: Predictions, parts: list[Part]) -> Frame:
        """Make the frame of the log that holds answered rows."""
        return Frame(
            ids=b"".join(predictions.ids),
            endpoint=self.revision.endpoint,
            revision=self.revision.number,
            model=predictions.model,
            package=self.revision.packages[predictions.model],
            time=time.time(),
            parts=parts,
            answers=predictions.answers,
            path=list(predictions.path),
        )

    def background(self) -> tuple[list[Any], int]:
        """Give the background rows of the node, and how many of them accepted bounds refuse."""
        rows: list[Any] = []
        all_rows = msgspec.json.decode(self._node.background, type=list[msgspec.Raw])
        for row in all_rows:
            if not self.checker.problems([row]):
                rows += self.checker.decode(bytes(row))
        return rows, len(all_rows) - len(rows)

    def try_out(self) -> None:
        """Answer background rows at several batch sizes, half a second long, and learn the cost."""
        rows, _ = self.background()
        until = time.perf_counter() + TRIAL_S
        for size in TRIAL_SIZES:
            sample = rows[:size]
            if not sample or time.perf_counter() > until:
                return
            start = time.perf_counter()
            self.answer(sample, [None] * len(sample))
            self.cost.observe(len(sample), time.perf_counter() - start)

    def close(self) -> None:
        """Give back the models; no call comes after it."""
        self._node.close()
