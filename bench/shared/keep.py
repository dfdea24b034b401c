"""Keeping what was measured, with the machine and the versions."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from clewline.flow import environment

RESULTS = Path(__file__).parent.parent / "results"


def keep(name: str, figures: dict[str, Any], *, versions: tuple[str, ...] = ()) -> None:
    """Write `results/NAME.json`."""
    machine = environment.record()
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "figures": figures,
        "cpu": machine.cpu,
        "cpus": machine.cpus,
        "python": machine.python,
        "platform": machine.platform,
        "versions": {name: machine.distributions[name] for name in ("clewline", *versions)},
    }
    path = RESULTS / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")
    print(f"kept in {path}", file=sys.stderr)
