"""The share of each arm, fixed or moving over time, as `weights` and `sticky` routes have it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairlead.errors import InvalidConfig
from fairlead.serve.router import Setting
from fairlead.store.ids import id_time_s


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

    def __init__(self, config: dict[str, Any], setting: Setting) -> None:
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

    def of(self, ids: list[bytes]) -> NDArray[np.float64]:
        """Give the shares of the arms for each row, shape (n, arms)."""
        if self._ramp is None:
            return np.broadcast_to(self._first, (len(ids), len(self._first)))
        last, since, over_s = self._ramp
        times = np.array([id_time_s(identifier) for identifier in ids])
        done = np.clip((times - since) / over_s, 0.0, 1.0)[:, np.newaxis]
        mixed: NDArray[np.float64] = self._first * (1.0 - done) + last * done
        return mixed


def _shares(weights: dict[str, float], setting: Setting) -> NDArray[np.float64]:
    for arm in weights:
        if arm not in setting.arms:
            known = ", ".join(setting.arms)
            raise InvalidConfig(
                f"The route {setting.node!r} gives a weight to {arm!r}, which is no arm.",
                f"Its arms are {known}.",
            )
    found = np.array([float(weights.get(arm, 0.0)) for arm in setting.arms])
    total = float(found.sum())
    if not (np.isfinite(found).all() and (found >= 0).all() and total > 0):
        raise InvalidConfig(f"The weights of {setting.node!r} are {weights}.", _EXAMPLE)
    return found / total


_EXAMPLE = "It looks like {weights: {champion: 0.9, challenger: 0.1}}."
