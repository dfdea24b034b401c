"""A route that draws each row's arm by weights: an A/B test, a canary with its ramp."""

from __future__ import annotations

from clewline.serve.graph.routers.arm_shares import SharesRouter, UniformHash
from clewline.serve.graph.routers.router import Config, RouteContext


class WeightsRouter(SharesRouter):
    """
    Draws the arm from the prediction's id, so that a replay draws the same.

    Config: `{"weights": {arm: share}, "ramp": {"to": {arm: share}, "over_s": s}}`.
    """

    def __init__(self, config: Config, context: RouteContext) -> None:
        super().__init__(config, context)
        self._hash = UniformHash(f"{context.endpoint}/{context.node}/{config.get('salt') or ''}")

    def arm(self, identifier: bytes, entity: str | None, shares: list[float]) -> int:
        """Find the arm that has the number of the id in its share."""
        number = self._hash.of(identifier)
        last, end = 0, 0.0
        for arm, share in enumerate(shares):
            if share > 0:
                last, end = arm, end + share
                if number < end:
                    break
        return last  # the last arm with a share takes what rounding leaves below 1
