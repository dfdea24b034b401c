"""A route that draws each row's arm by weights: an A/B test, a canary with its ramp."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.serve.graph.batch import Batch
from clewline.serve.graph.routers.draws import UniformHash
from clewline.serve.graph.routers.router import RouteContext
from clewline.serve.graph.routers.shares import Shares
from clewline.store.records import RouterState


class WeightsRouter:
    """
    Draws the arm from the prediction's id, so that a replay draws the same.

    Config: `{"weights": {arm: share}, "ramp": {"to": {arm: share}, "over_s": s}}`.
    """

    learns = False

    def __init__(self, shares: Shares, salt: str) -> None:
        self._shares = shares
        self._draws = UniformHash(salt)

    @classmethod
    def build(cls, config: dict[str, Any], setting: RouteContext) -> WeightsRouter:
        """Make it from its weights."""
        shares = Shares(config, setting)
        return cls(shares, f"{setting.endpoint}/{setting.node}/{shares.salt or ''}")

    def choose(
        self, batch: Batch, state: RouterState | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Draw an arm for each row."""
        arms, propensities = [], []
        for identifier in batch.ids:
            shares = self._shares.of(identifier)
            arm = _drawn(self._draws.of(identifier), shares)
            arms.append(arm)
            propensities.append(shares[arm])
        return np.array(arms, dtype=np.intp), np.array(propensities)


def _drawn(number: float, shares: list[float]) -> int:
    """Find the arm in whose share a number between 0 and 1 lies."""
    last, end = 0, 0.0
    for arm, share in enumerate(shares):
        if share > 0:
            last, end = arm, end + share
            if number < end:
                break
    return last  # the last that has a share takes what rounding leaves below 1
