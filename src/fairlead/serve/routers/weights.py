"""A route that draws each row's arm by weights: an A/B test, a canary with its ramp."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlead.serve.answered import Batch
from fairlead.serve.router import Setting
from fairlead.serve.routers.draws import draws
from fairlead.serve.routers.shares import Shares
from fairlead.store.records import RouterState


class WeightsRouter:
    """
    Draws the arm from the prediction's id, so that a replay draws the same.

    Config: `{"weights": {arm: share}, "ramp": {"to": {arm: share}, "over_s": s}}`.
    """

    learns = False

    def __init__(self, shares: Shares, salt: str) -> None:
        self._shares = shares
        self._salt = salt

    @classmethod
    def build(cls, config: dict[str, Any], setting: Setting) -> WeightsRouter:
        """Make it from its weights."""
        shares = Shares(config, setting)
        return cls(shares, f"{setting.endpoint}/{setting.node}/{shares.salt or ''}")

    def choose(
        self, batch: Batch, state: RouterState | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Draw an arm for each row."""
        shares = self._shares.of(batch.ids)
        drawn = draws(self._salt, batch.ids)[:, np.newaxis]
        ends = np.cumsum(shares, axis=1)
        # The last arm that has a share takes what rounding leaves below 1.
        last = shares.shape[1] - 1 - np.argmax(shares[:, ::-1] > 0, axis=1)
        arms = np.minimum((drawn >= ends).sum(axis=1), last)
        return arms, shares[np.arange(len(arms)), arms]
