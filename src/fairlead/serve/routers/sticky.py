"""A route that sends an entity to the same arm each time it comes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlead.serve.answered import Batch
from fairlead.serve.router import Setting
from fairlead.serve.routers.draws import draws
from fairlead.serve.routers.shares import Shares
from fairlead.store.records import RouterState


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
        self._salts = [f"{salt}/{arm}" for arm in arms]

    @classmethod
    def build(cls, config: dict[str, Any], setting: Setting) -> StickyRouter:
        """Make it from its weights; without any, every arm has the same."""
        even = {"weights": dict.fromkeys(setting.arms, 1.0)}
        shares = Shares({**even, **config}, setting)
        return cls(shares, setting.arms, shares.salt or f"{setting.endpoint}/{setting.node}")

    def choose(
        self, batch: Batch, state: RouterState | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Choose by entity, or by id where there is none."""
        keys = [
            b"id:" + identifier if entity is None else b"entity:" + entity.encode()
            for identifier, entity in zip(batch.ids, batch.entities, strict=True)
        ]
        shares = self._shares.of(batch.ids)
        scores = np.full(shares.shape, np.inf)
        with np.errstate(over="ignore"):  # a weight of next to nothing: it never wins
            for arm, salt in enumerate(self._salts):
                weight, drawn = shares[:, arm], -np.log(draws(salt, keys))
                np.divide(drawn, weight, out=scores[:, arm], where=weight > 0)
        arms = np.argmin(scores, axis=1)
        return arms, shares[np.arange(len(arms)), arms]
