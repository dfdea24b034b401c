"""A change that matters is seen by the next run; one that does not matter costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from flow.probes.corpus import PROBES
from flow.probes.known import KNOWN
from flow.probes.probe import Probe
from packaging.requirements import Requirement

RUNNER = Path(__file__).parent / "run_probes.py"
JOBS = os.cpu_count() or 1
ENVIRON = {
    "PYTHONDONTWRITEBYTECODE": "1",  # a file is edited within the second of its import
    "PYTHONHASHSEED": "0",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1"),
}


def is_missing(probe: Probe) -> list[str]:
    """The requirements of a probe that are not installed."""
    return [each for each in probe.needs if not _is_installed(Requirement(each))]


def _is_installed(needed: Requirement) -> bool:
    try:
        return needed.specifier.contains(metadata.version(needed.name))
    except metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def observed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the runs of every selected probe did."""
    calls = (getattr(item, "callspec", None) for item in request.session.items)
    chosen = [call.params["probe"] for call in calls if call and "probe" in call.params]
    names = [probe.name for probe in chosen if not is_missing(probe)]
    folder = tmp_path_factory.mktemp("probes")
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(folder), str(JOBS), *names],
        env={**os.environ, **ENVIRON},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    lines = map(json.loads, done.stdout.splitlines())
    return {line.pop("name"): line for line in lines}


def marked(probe: Probe) -> Any:
    """The probe as a parameter of a test."""
    missing = is_missing(probe)
    marks = [pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")]
    if probe.name in KNOWN:
        reason = f"kind {KNOWN[probe.name]}"
        marks.append(pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError))
    return pytest.param(probe, id=probe.name, marks=marks)


def test_every_probe_has_a_name_of_its_own() -> None:
    names = [probe.name for probe in PROBES]
    assert len(names) == len(set(names))
    assert KNOWN.keys() <= set(names)


@pytest.mark.parametrize("probe", list(map(marked, PROBES)))
def test_the_run_after_the_change_is_right(probe: Probe, observed: dict[str, Any]) -> None:
    found = observed[probe.name]
    if "error" in found:
        raise ChildProcessError(found["error"])
    first, second, truth = found["first"], found["second"], found["truth"]
    if set(truth["status"]) != {"done"}:
        raise ValueError(f"the probe is wrong: without the cache, {truth}")
    if probe.expected == "new":
        if first["outputs"] == truth["outputs"]:
            raise ValueError("the probe is wrong: its change changes nothing")
        assert second["outputs"] == truth["outputs"], f"stale: {second['status']}"
    elif probe.expected == "same":
        if first["outputs"] != truth["outputs"]:
            raise ValueError("the probe is wrong: its change changes the result")
        assert set(second["status"]) == {"cached"}, first["uncacheable"]
    else:
        assert "cached" not in second["status"], f"from the cache: {second['status']}"
        assert all(first["uncacheable"]), "no reason is stated"
