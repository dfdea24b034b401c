"""What may move the last bit of a result is recorded, and differences are told."""

import platform
from importlib.metadata import version

import msgspec
import numpy as np
import pytest

from clewline.flow.environment import Environment, environment_differences, record


def test_the_environment_is_recorded(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = record()
    assert found.python == platform.python_version()
    assert found.distributions["numpy"] == version("numpy") == np.__version__
    assert found.distributions["scikit-learn"] == version("scikit-learn")
    assert found.hash_seed == "0"
    assert found.variables["OMP_NUM_THREADS"] == "3"
    assert found.cpus >= 1
    assert any(library.threads >= 1 for library in found.libraries)


def test_a_record_survives_storage():
    found = record()
    assert msgspec.json.decode(msgspec.json.encode(found), type=Environment) == found


def test_equal_environments_do_not_differ():
    assert environment_differences(record(), record()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cpu": "Other"}, "CPU: .* → Other"),
        ({"cpu_features": ("only",)}, "CPU feature only: absent → yes"),
        ({"python": "3.0.0"}, "Python: .* → 3.0.0"),
        ({"distributions": {"new": "1"}}, "package new: absent → 1"),
        ({"variables": {"TZ": "UTC"}}, "variable TZ: absent → UTC"),
        ({"libraries": ()}, "library .* → absent"),
    ],
)
def test_a_difference_is_told_in_words(monkeypatch, change, told):
    import re

    monkeypatch.delenv("TZ", raising=False)
    found = record()
    lines = environment_differences(found, msgspec.structs.replace(found, **change))
    assert any(re.match(told, line) for line in lines)
