"""A route that sends an entity to the same arm each time it comes."""

from __future__ import annotations

import math

from clewline.serve.graph.problems import Problems
from clewline.serve.graph.routers.arm_shares import SharesRouter, UniformHash
from clewline.serve.graph.routers.router import Config, RouteContext


class StickyRouter(SharesRouter):
    """
    Chooses by a hash of the entity: weighted rendezvous hashing.

    Each arm gets a number for the entity, and the least `-ln(number) / weight`
    wins. So when an arm's weight grows, entities move to it and between no others.
    A row without an entity is drawn by its prediction id, as by `weights`.

    Config: `{"weights": {arm: share}, "salt": string, "ramp": …}`; by default the salt
    is the endpoint and the name of the route, so that two experiments are independent
    of each other. The propensity is over the draw of the hash.

    Source:
        Schindelhauer and Schomaker, Weighted distributed hash tables (SPAA 2005).
    """

    def __init__(self, config: Config, context: RouteContext) -> None:
        super().__init__(config, context)
        salt = config.get("salt") or f"{context.endpoint}/{context.node}"
        self._hashes = [UniformHash(f"{salt}/{arm}") for arm in context.arms]

    @classmethod
    def parse(cls, settings: Config, arms: list[str], at: str, problems: Problems) -> Config:
        """Read weights, ramp and salt; without weights every arm has the same share."""
        even = dict.fromkeys(arms, 1.0 / len(arms)) if arms else {}
        return super().parse({"weights": even, **settings}, arms, at, problems)

    def arm(self, identifier: bytes, entity: str | None, shares: list[float]) -> int:
        """Choose by the entity, or by the id if there is none."""
        key = b"id:" + identifier if entity is None else b"entity:" + entity.encode()
        scores = [
            -math.log(each.of(key)) / share if share > 0 else math.inf
            for each, share in zip(self._hashes, shares, strict=True)
        ]
        return scores.index(min(scores))
