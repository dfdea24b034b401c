"""The doctor names what is wrong with keys, packages and chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from clewline.model import doctor, package, seal
from clewline.model.doctor import fix_models, model_findings
from clewline.model.promote import promote
from clewline.model.registry import Registry
from clewline.model.verify import Verification
from clewline.project import Project

from .conftest import add


def codes(project: Project) -> list[str]:
    return [finding.code for finding in model_findings(project)]


def test_nothing_is_wrong_with_a_new_registry(registry: Registry) -> None:
    add(registry, b"a")
    promote(registry, "income@1", "champion")
    assert model_findings(registry.project) == []


def test_a_flipped_byte_is_named_with_version_and_file(registry: Registry) -> None:
    path = registry.folder(add(registry, b"a")) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"b")
    (found,) = model_findings(registry.project)
    assert found.code == "damaged_package"
    assert found.values["model"] == "income@1"
    assert "model.onnx changed" in found.values["problem"]


def test_a_key_that_others_can_read_or_that_is_another_one_is_named(project: Project) -> None:
    project.private_key.chmod(0o644)
    assert codes(project) == ["exposed_key"]
    project.private_key.unlink()
    seal.make_keys(project.private_key)
    assert codes(project) == ["wrong_key"]
    project.private_key.write_text("no key")
    assert codes(project) == ["unreadable_key"]


def test_leftovers_of_killed_registrations_are_named(registry: Registry) -> None:
    project = registry.project
    (project.packages / "income" / "1").mkdir(parents=True)
    assert codes(project) == ["unregistered_package"]
    add(registry, b"a")
    assert codes(project) == ["unregistered_package"]  # moved aside
    package.PackageDraft(project.store_root / "tmp", {"a": b""})
    assert codes(project) == ["unregistered_package"]  # a draft of a living process is no leftover
    (project.store_root / "tmp" / f"{package.DRAFT}999999999-00").mkdir()
    assert sorted(codes(project)) == ["unfinished_package", "unregistered_package"]


def test_what_killed_registrations_leave_is_removed_unless_the_catalog_may_be_older(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = registry.project
    add(registry, b"a")
    left = project.packages / "income" / "2"
    left.mkdir(parents=True)
    draft = project.store_root / "tmp" / f"{package.DRAFT}999999999-00"
    draft.mkdir()
    fix_models(project)
    assert codes(project) == ["unregistered_package"]
    assert not draft.exists()
    proven = Verification(versions=[], links=1, anchors=1, problems=[])
    monkeypatch.setattr(doctor, "verify", lambda registry, **_: proven)
    fix_models(project)
    assert codes(project) == []
    assert registry.open("income@1").files["model.onnx"] == b"a"


def test_the_doctor_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    add(registry, b"a")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    model_findings(registry.project)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    changed = {path.name for path in before if after.get(path) != before[path]}
    assert changed <= {"catalog.db-shm", "catalog.db-wal", ".clewline"}


@pytest.mark.parametrize("broken", [None, "c2hvcnQ="])
def test_a_project_without_a_public_key_is_named(registry: Registry, broken: str | None) -> None:
    import dataclasses

    add(registry, b"a")
    project = dataclasses.replace(registry.project, public_key=broken)
    assert set(codes(project)) == {"wrong_key", "unverifiable_registry"}
