"""The resource usage of a block is measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clewline.flow import resource_usage
from clewline.flow.resource_usage import measure_usage, spent_joules


def test_wall_and_cpu_time_are_measured_also_when_the_work_fails():
    with pytest.raises(KeyError), measure_usage() as cost:
        {}[sum(range(200_000))]
    assert cost.cpu_s > 0
    assert cost.wall_s > 0


def test_cpu_time_of_a_child_counts():
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    with measure_usage() as cost:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert cost.cpu_s > 0.19


def test_the_peak_is_that_of_this_work():
    with measure_usage() as large:
        held = bytearray(os.urandom(64 << 20))
    del held
    with measure_usage() as small:
        pass
    assert large.peak_bytes > small.peak_bytes + (32 << 20)


def test_energy_is_read_from_the_top_level_counters_or_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(resource_usage, "POWERCAP", tmp_path)
    with measure_usage() as cost:
        pass
    assert cost.energy_j is None
    for zone, used in (("intel-rapl:0", 5_000_000), ("intel-rapl:0:0", 1), ("intel-rapl", 1)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(str(used))
        (tmp_path / zone / "max_energy_range_uj").write_text("10000000")
    with measure_usage() as cost:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("7000000")
    assert cost.energy_j == 2.0


def test_a_counter_that_passed_its_end_is_understood():
    zone = Path("zone")
    assert spent_joules({zone: (9_000_000, 10_000_000)}, {zone: (1_000_000, 10_000_000)}) == 2.0
