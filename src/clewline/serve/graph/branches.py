"""Branches of a graph answered beside each other, where that pays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait

from clewline.serve.batcher import BatchCost
from clewline.serve.graph.batch import Batch, NodeAnswers
from clewline.serve.graph.edges import AlignedNode

PAYS_S = 0.001
"""What the others must be expected to take beside the longest branch, before threads are asked."""


class Branches:
    """
    Answers one batch by several nodes.

    A branch that no thread has begun is taken back and answered here: so a
    thread never waits for what only a waiting thread could do, however deep
    branches stand in branches, and whoever else uses the threads.
    """

    def __init__(self, branches: Sequence[AlignedNode], threads: Executor | None) -> None:
        self._branches = branches
        self._threads = threads
        self._costs = [BatchCost() for _ in branches]

    def answer(self, batch: Batch) -> list[NodeAnswers]:
        """
        Let every branch answer, in their order.

        The error of the first branch that fails is raised, when none runs any more.
        """
        if self._threads is None or not self._pays(len(batch.ids)):
            return [self._one(place, batch) for place in range(len(self._branches))]
        futures = [
            self._threads.submit(self._one, place, batch) for place in range(1, len(self._branches))
        ]
        try:
            first = self._one(0, batch)
            rest = [self._result(place, future, batch) for place, future in enumerate(futures, 1)]
        finally:
            wait([future for future in futures if not future.cancel()])
        return [first, *rest]

    def _one(self, place: int, batch: Batch) -> NodeAnswers:
        start = time.perf_counter()
        answered = self._branches[place].answer(batch)
        self._costs[place].observe(len(batch.ids), time.perf_counter() - start)
        return answered

    def _result(self, place: int, future: Future[NodeAnswers], batch: Batch) -> NodeAnswers:
        return self._one(place, batch) if future.cancel() else future.result()

    def _pays(self, rows: int) -> bool:
        expected = [cost.estimate(rows) for cost in self._costs]
        return sum(expected) - max(expected) > PAYS_S
