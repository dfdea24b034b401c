"""An endpoint's file says what is known and built, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.errors import InvalidConfig, NotFound
from fairlead.project import Project
from fairlead.serve import spec


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "endpoints").mkdir()
    text = "endpoint: income\nmodel: income@champion\nlog: {durability: fsync}\n"
    (tmp_path / "endpoints" / "income.yaml").write_text(text)
    project = Project(tmp_path, "loans", "0")
    found = spec.read(project, "income")
    assert (found.endpoint, found.model, found.durability) == ("income", "income@champion", "fsync")
    assert found.source["log"] == {"durability": "fsync"}
    assert spec.names(project) == ["income"]
    with pytest.raises(NotFound, match=r"Did you mean income\?"):
        spec.read(project, "incom")
    (tmp_path / "endpoints" / "other.yaml").write_text(text)
    with pytest.raises(InvalidConfig, match="says endpoint: income"):
        spec.read(project, "other")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoint: a\nmodel: a@1\nslo: {}", "key slo is planned and not built yet"),
        ("endpoint: a\nmodel: a@1\nroute: {}", "key route does not stand at the top"),
        ("endpoint: a\nmodel: a@1\nlog: {drop: [ssn]}", "key log.drop is planned and not built"),
        ("endpoint: a\nmodel: a@1\nmodel: a@2", "the key model stands twice"),
        (
            "endpoint: a\nmodel: a@1\nlog: {durability: fsync, durability: process}",
            "the key durability stands twice",
        ),
        ("endpoint: a\nmodle: a@1", r"key modle is not known. Did you mean model\?"),
        ("endpoint: a\nmodel: a@1\nlog: {durable: x}", r"Did you mean log.durability\?"),
        ("endpoint: a\nmodel: a@1\nlog: {durability: never}", "log.durability is 'never'"),
        ("endpoint: a\nmodel: a@1\nlog: 3", "log is 3"),
        ("endpoint: A b\nmodel: a@1", "endpoint is 'A b'"),
        ("model: a@1", "endpoint is None"),
        ("endpoint: a\nmodel: a", "model is 'a'"),
        ("endpoint: a", "model is None"),
        ("endpoint: [", "is not YAML"),
        ("just words", "holds no keys"),
    ],
)
def test_what_is_not_known_or_not_built_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        spec.parse(text.encode(), Path("endpoints/a.yaml"))
