"""The share of each arm, fixed or moving over time, as `weights` and `sticky` routes have it."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from clewline.errors import InvalidConfig
from clewline.serve.graph.routers.router import RouteContext
from clewline.store.ids import id_time_s


class _Ramp(msgspec.Struct, forbid_unknown_fields=True):
    to: dict[str, float]
    over_s: float


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    weights: dict[str, float]
    ramp: _Ramp | None = None
    salt: str | None = None


class Shares:
    """
    The shares of the arms for a row, which sum to 1.

    With a ramp they go evenly from `weights` to `ramp.to`, in `ramp.over_s`
    seconds that begin when the revision first went live. The time of a row is
    that in its id, so that a replay computes the same shares.
    """

    def __init__(self, config: dict[str, Any], setting: RouteContext) -> None:
        """
        Read the config of a route.

        Raises:
            InvalidConfig: It is not that, or names an arm that is not there.
        """
        try:
            read = msgspec.convert(config, _Config, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidConfig(f"The route {setting.node!r}: {error}.", _EXAMPLE) from error
        self.salt = read.salt
        self._first = _shares(read.weights, setting)
        self._ramp = None
        if read.ramp is not None:
            if not read.ramp.over_s > 0:
                raise InvalidConfig(f"{setting.node!r} ramps over {read.ramp.over_s} s.", _EXAMPLE)
            last = _shares(read.ramp.to, setting)
            self._ramp = last, setting.since, read.ramp.over_s

    def of(self, identifier: bytes) -> list[float]:
        """Give the shares of the arms for the row of a prediction id."""
        if self._ramp is None:
            return self._first
        last, since, over_s = self._ramp
        done = min(max((id_time_s(identifier) - since) / over_s, 0.0), 1.0)
        pairs = zip(self._first, last, strict=True)
        return [first * (1.0 - done) + then * done for first, then in pairs]


def _shares(weights: dict[str, float], setting: RouteContext) -> list[float]:
    for arm in weights:
        if arm not in setting.arms:
            known = ", ".join(setting.arms)
            raise InvalidConfig(
                f"The route {setting.node!r} gives a weight to {arm!r}, which is no arm.",
                f"Its arms are {known}.",
            )
    found = [float(weights.get(arm, 0.0)) for arm in setting.arms]
    total = math.fsum(found)
    if not (math.isfinite(total) and min(found) >= 0 and total > 0):
        raise InvalidConfig(f"The weights of {setting.node!r} are {weights}.", _EXAMPLE)
    return [weight / total for weight in found]


_EXAMPLE = "It looks like {weights: {champion: 0.9, challenger: 0.1}}."
