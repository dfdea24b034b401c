"""A route that sends an entity to the same arm each time it comes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.serve.graph.batch import Batch
from clewline.serve.graph.routers.draws import UniformHash
from clewline.serve.graph.routers.router import RouteContext
from clewline.serve.graph.routers.shares import Shares
from clewline.store.records import RouterState


class StickyRouter:
    """
    Chooses by a hash of the entity: weighted rendezvous hashing.

    Each arm draws a number for the entity, and the least `-ln(number) / weight`
    wins. So when an arm's weight grows, entities move to it and between no others.
    A row without an entity is drawn by its prediction id, as `weights` does it.

    Config: `{"weights": {arm: share}, "salt": text, "ramp": …}`; by default the
    salt is the endpoint and the name of the route, so that two experiments are
    independent of each other. The propensity is over the draw of the hash.

    Source:
        Schindelhauer and Schomaker, Weighted distributed hash tables (SPAA 2005).
    """

    learns = False

    def __init__(self, shares: Shares, arms: tuple[str, ...], salt: str) -> None:
        self._shares = shares
        self._draws = [UniformHash(f"{salt}/{arm}") for arm in arms]

    @classmethod
    def build(cls, config: dict[str, Any], setting: RouteContext) -> StickyRouter:
        """Make it from its weights; without any, every arm has the same."""
        even = {"weights": dict.fromkeys(setting.arms, 1.0)}
        shares = Shares({**even, **config}, setting)
        return cls(shares, setting.arms, shares.salt or f"{setting.endpoint}/{setting.node}")

    def choose(
        self, batch: Batch, state: RouterState | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Choose by entity, or by id where there is none."""
        arms, propensities = [], []
        for identifier, entity in zip(batch.ids, batch.entities, strict=True):
            key = b"id:" + identifier if entity is None else b"entity:" + entity.encode()
            shares = self._shares.of(identifier)
            arm = self._winner(key, shares)
            arms.append(arm)
            propensities.append(shares[arm])
        return np.array(arms, dtype=np.intp), np.array(propensities)

    def _winner(self, key: bytes, shares: list[float]) -> int:
        scores = [
            -math.log(draws.of(key)) / share if share > 0 else math.inf
            for draws, share in zip(self._draws, shares, strict=True)
        ]
        return scores.index(min(scores))
