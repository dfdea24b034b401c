"""The environment is recorded, and its differences are listed."""

import platform
from importlib.metadata import version

import msgspec
import numpy as np
import pytest

from clewline.flow.environment import Environment, environment_changes, record


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
    assert environment_changes(record(), record()) == []


@pytest.mark.parametrize(
    ("change", "part", "name", "kind"),
    [
        ({"cpu": "Other"}, "environment", "cpu", "changed"),
        ({"cpu_features": ("only",)}, "CPU feature", "only", "added"),
        ({"python": "3.0.0"}, "environment", "python", "changed"),
        ({"distributions": {"new": "1"}}, "package", "new", "added"),
        ({"variables": {"TZ": "UTC"}}, "variable", "TZ", "added"),
        ({"libraries": ()}, "library", None, "removed"),
    ],
)
def test_each_difference_is_listed(monkeypatch, change, part, name, kind):
    monkeypatch.delenv("TZ", raising=False)
    found = record()
    changes = environment_changes(found, msgspec.structs.replace(found, **change))
    listed = {(each.part, each.name if name else None, each.kind) for each in changes}
    assert (part, name, kind) in listed
