"""
The tests that every router must pass, ours and those of plug-ins.

Subclass `RouterContract` in a test module and override the fixtures `router`,
`arms`, `rows` and, where it learns, `state`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from clewline.model.runtime.outputs import take_rows
from clewline.serve.graph.node import Batch
from clewline.serve.graph.routers.router import Router
from clewline.signature.columns import Columns
from clewline.store.ids import prediction_ids
from clewline.store.records import RouterState

DRAWS = 2000
SIGMAS = 6.0
"""Standard deviations that a share may be from its propensity: once in 500 million by chance."""


class RouterContract:
    """Tests that a router's choice can be replayed, and that its propensities are true."""

    @pytest.fixture
    def router(self) -> Router:
        """Return the router to be tested."""
        raise NotImplementedError

    @pytest.fixture
    def arms(self) -> int:
        """Return the number of arms that it chooses from."""
        raise NotImplementedError

    @pytest.fixture
    def rows(self) -> Columns:
        """Return three or more different rows."""
        raise NotImplementedError

    @pytest.fixture
    def state(self) -> RouterState | None:
        """Return what it has learned."""
        return None

    def batch(self, rows: Columns, ids: list[bytes] | None = None) -> Batch:
        """Make a batch of rows without entities."""
        return Batch(rows, ids or prediction_ids(len(rows)), [None] * len(rows))

    def test_every_row_gets_an_arm_and_a_propensity(
        self, router: Router, arms: int, rows: Columns, state: RouterState | None
    ) -> None:
        chosen, propensities = router.choose(self.batch(rows), state)
        assert chosen.shape == propensities.shape == (len(rows),)
        assert ((chosen >= 0) & (chosen < arms)).all()
        assert ((propensities > 0) & (propensities <= 1)).all()

    def test_a_row_gets_the_same_alone_and_in_any_batch(
        self, router: Router, rows: Columns, state: RouterState | None
    ) -> None:
        batch = self.batch(rows)
        together = list(zip(*router.choose(batch, state), strict=True))
        for row, identifier in enumerate(batch.ids):
            alone = self.batch(take_rows(rows, slice(row, row + 1)), [identifier])
            assert list(zip(*router.choose(alone, state), strict=True)) == [together[row]]

    def test_the_batch_is_left_as_it_was(
        self, router: Router, rows: Columns, state: RouterState | None
    ) -> None:
        before = rows.numbers.tobytes(), rows.texts.tolist()
        router.choose(self.batch(rows), state)
        assert before == (rows.numbers.tobytes(), rows.texts.tolist())

    def test_arms_come_as_often_as_their_propensity_says(
        self, router: Router, rows: Columns, state: RouterState | None
    ) -> None:
        many = take_rows(rows, np.zeros(DRAWS, dtype=np.intp))
        chosen, propensities = router.choose(self.batch(many), state)
        shares = {arm: propensities[chosen == arm].mean() for arm in set(chosen.tolist())}
        assert sum(shares.values()) <= 1 + 1e-9
        for arm, share in shares.items():
            room = SIGMAS * math.sqrt(DRAWS * share * (1 - share)) + 1e-6
            assert abs((chosen == arm).sum() - DRAWS * share) <= room
