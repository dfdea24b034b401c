"""The share of each arm, fixed or moving over time, as `weights` and `sticky` routes have it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from blake3 import blake3

from clewline.formatting import format_duration, parse_duration
from clewline.serve.graph.node import Batch
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.routers.router import ArmDraws, Config, RouteContext, Router
from clewline.serve.graph.tree import plain_text
from clewline.store.ids import id_time_s
from clewline.store.records import RouterState

_TOLERANCE = 1e-9


class SharesRouter(Router):
    """
    A router whose arms have shares, which sum to 1.

    With a ramp they go evenly from `weights` to `ramp.to` within `ramp.over_s` seconds
    after the revision was made. The time of a row is that in its id, so a replay
    computes the same shares. A rollback to the revision does not start the ramp again.
    """

    def __init__(self, config: Config, context: RouteContext) -> None:
        even = dict.fromkeys(context.arms, 1.0)
        self._first = _normalised(config.get("weights", even), context.arms)
        self._ramp = None
        if "ramp" in config:
            last = _normalised(config["ramp"]["to"], context.arms)
            self._ramp = last, context.since, config["ramp"]["over_s"]

    @classmethod
    def parse(cls, settings: Config, arms: list[str], at: str, problems: Problems) -> Config:
        """Read `weights:`, `ramp:` and `salt:`."""
        problems.add_unknown_keys(settings, ("weights", "ramp", "salt"), at)
        weights = parse_weights(settings.get("weights"), arms, f"{at}.weights", problems)
        config: Config = {"weights": weights}
        ramp, at = settings.get("ramp"), f"{at}.ramp"
        if isinstance(ramp, dict):
            problems.add_unknown_keys(ramp, ("to", "over"), at)
            to = parse_weights(ramp.get("to"), arms, f"{at}.to", problems)
            over = ramp.get("over")
            over_s = parse_duration(str(over))
            if not over_s:
                fix = "Write a time with its unit: 90s, 30m, 24h or 7d."
                problems.add_wrong_value(f"{at}.over", over, fix)
            config["ramp"] = {"to": to, "over_s": over_s}
        elif "ramp" in settings:
            problems.add_wrong_value(at, ramp, "Write ramp: {to: {ARM: SHARE, …}, over: 24h}.")
        if "salt" in settings:
            config["salt"] = str(settings["salt"])
        return config

    @classmethod
    def config_text(cls, config: Config) -> str:
        """Write the shares of the arms."""
        return shares_text(config)

    def choose(self, batch: Batch, state: RouterState | None) -> ArmDraws:
        """Choose by the shares at the time of each row."""
        arms, propensities = [], []
        shares = self._first
        for identifier, entity in zip(batch.ids, batch.entities, strict=True):
            if self._ramp is not None:
                last, since, over_s = self._ramp
                done = min(max((id_time_s(identifier) - since) / over_s, 0.0), 1.0)
                pairs = zip(self._first, last, strict=True)
                shares = [first * (1.0 - done) + then * done for first, then in pairs]
            arm = self.arm(identifier, entity, shares)
            arms.append(arm)
            propensities.append(shares[arm])
        return np.array(arms, dtype=np.intp), np.array(propensities)

    def arm(self, identifier: bytes, entity: str | None, shares: list[float]) -> int:
        """Choose the arm of a row by its id, its entity and the shares of the arms."""
        raise NotImplementedError


class UniformHash:
    """Gives each key a number that looks random; another salt gives independent numbers."""

    def __init__(self, salt: str) -> None:
        self._start = blake3(salt.encode() + b"\0")

    def of(self, key: bytes) -> float:
        """Return the number of a key, in (0, 1), always the same."""
        digest = self._start.copy()
        digest.update(key)
        whole = int.from_bytes(digest.digest(8), "little") >> 11  # a float64 holds 53 bits exactly
        return (whole + 0.5) * 2.0**-53


def parse_weights(value: Any, arms: list[str], at: str, problems: Problems) -> dict[str, float]:
    """Read one share for each arm, together 1; an arm that is not named has none."""
    if not isinstance(value, dict) or not value:
        problems.add_wrong_value(at, value, "Write a share for each arm, together 1.")
        return {}
    before = len(problems)
    for arm, share in value.items():
        if arm not in arms:
            problems.add("unknown_arm", f"{at}.{arm}", arm=arm, known=arms)
        if not _is_number(share) or share < 0:
            problems.add_wrong_value(f"{at}.{arm}", share, "Write a share between 0 and 1.")
    shares = {str(arm): float(share) for arm, share in value.items() if _is_number(share)}
    total = math.fsum(shares.values())
    if len(problems) == before and abs(total - 1.0) > _TOLERANCE:
        problems.add("shares_sum", at, total=total)
    return {arm: shares.get(arm, 0.0) for arm in arms}


def shares_text(config: Config) -> str:
    """
    Write shares and ramp in one line.

    >>> shares_text({"weights": {"a": 1.0}, "ramp": {"to": {"b": 1.0}, "over_s": 75.0}})
    ': a 1; to b 1 in 1 min 15 s'
    """
    parts = [plain_text(config["weights"])] if "weights" in config else []
    if "ramp" in config:
        to, over_s = config["ramp"]["to"], config["ramp"]["over_s"]
        parts.append(f"to {plain_text(to)} in {format_duration(over_s)}")
    if "salt" in config:
        parts.append(f"salt {config['salt']}")
    return f": {'; '.join(parts)}" if parts else ""


def _normalised(weights: dict[str, float], arms: tuple[str, ...]) -> list[float]:
    found = [float(weights.get(arm, 0.0)) for arm in arms]
    total = math.fsum(found)
    return [weight / total for weight in found]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
