"""A route that draws each row's arm by weights: an A/B test, a canary with its ramp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clewline.serve.graph.node import Batch
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.routers.arm_shares import (
    ArmShares,
    UniformHash,
    parse_shares,
    shares_text,
)
from clewline.serve.graph.routers.router import Config, RouteContext, Router
from clewline.store.records import RouterState


class WeightsRouter(Router):
    """
    Draws the arm from the prediction's id, so that a replay draws the same.

    Config: `{"weights": {arm: share}, "ramp": {"to": {arm: share}, "over_s": s}}`.
    """

    def __init__(self, config: Config, context: RouteContext) -> None:
        self._shares = ArmShares(config, context)
        self._hash = UniformHash(f"{context.endpoint}/{context.node}/{config.get('salt') or ''}")

    @classmethod
    def parse(cls, settings: Config, arms: list[str], at: str, problems: Problems) -> Config:
        """Read the weights and the ramp."""
        return parse_shares(settings, arms, at, problems)

    @classmethod
    def config_text(cls, config: Config) -> str:
        """Write the shares of the arms."""
        return shares_text(config)

    def choose(
        self, batch: Batch, state: RouterState | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Draw an arm for each row."""
        arms, propensities = [], []
        for identifier in batch.ids:
            shares = self._shares.of(identifier)
            arm = _arm_at(self._hash.of(identifier), shares)
            arms.append(arm)
            propensities.append(shares[arm])
        return np.array(arms, dtype=np.intp), np.array(propensities)


def _arm_at(number: float, shares: list[float]) -> int:
    """Find the arm that has a number between 0 and 1 in its share."""
    last, end = 0, 0.0
    for arm, share in enumerate(shares):
        if share > 0:
            last, end = arm, end + share
            if number < end:
                break
    return last  # the last arm with a share takes what rounding leaves below 1
