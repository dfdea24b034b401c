"""`clewline init`: a project that runs, and a clone that is completed."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from clewline import scaffold
from clewline.errors import Conflict, NotFound
from clewline.model.seal import Sealer, verify_signature
from clewline.project import Project


@pytest.fixture
def made(tmp_path: Path) -> Project:
    return scaffold.create(tmp_path / "loans", template="empty")


def clone(made: Project, to: Path) -> Path:
    """A copy without what Git ignores."""
    shutil.copytree(made.root, to, ignore=shutil.ignore_patterns(".clewline", ".git"))
    return to


def seals_hold(project: Project) -> bool:
    assert project.public_key is not None
    sealer = Sealer.read(project.private_key)
    return verify_signature(project.public_key, b"package", sealer.sign(b"package"))


def test_a_project_has_a_store_and_a_key_that_only_its_owner_reads(made: Project) -> None:
    assert (made.store_root / "catalog.db").exists()
    assert stat.S_IMODE(made.private_key.stat().st_mode) == 0o600
    assert seals_hold(made)


def test_a_complete_project_is_not_created_again(made: Project) -> None:
    with pytest.raises(Conflict, match="already"):
        scaffold.create(made.root)
    with pytest.raises(Conflict, match="already"):
        scaffold.create(made.root, new_key=True)


def test_a_clone_gets_its_store_and_keeps_the_key_it_is_checked_with(
    made: Project, tmp_path: Path
) -> None:
    cloned = scaffold.create(clone(made, tmp_path / "clone"))
    assert (cloned.store_root / "catalog.db").exists()
    assert cloned.public_key == made.public_key
    assert not cloned.private_key.exists()


@pytest.mark.parametrize("after_init", [False, True])
def test_a_clone_may_seal_with_a_key_of_its_own(
    made: Project, tmp_path: Path, after_init: bool
) -> None:
    folder = clone(made, tmp_path / "clone")
    if after_init:
        scaffold.create(folder)
    cloned = scaffold.create(folder, new_key=True)
    assert cloned.public_key != made.public_key
    assert cloned.id == made.id
    assert seals_hold(cloned)


def test_a_template_replaces_no_file(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("mine")
    with pytest.raises(Conflict, match=r"gate\.yaml"):
        scaffold.create(tmp_path)
    assert (tmp_path / "gate.yaml").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["gate.yaml"]


def test_a_repository_keeps_its_readme_and_its_git_learns_to_ignore_the_store(
    tmp_path: Path,
) -> None:
    (tmp_path / "README.md").write_text("# Ours\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n*.csv")
    scaffold.create(tmp_path, template="empty")
    assert (tmp_path / "README.md").read_text() == "# Ours\n"
    assert (tmp_path / ".gitignore").read_text().splitlines() == [
        "__pycache__/",
        "*.csv",
        ".clewline/",
        ".venv/",
    ]


def test_an_unknown_template_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="empty or tumours"):
        scaffold.create(tmp_path / "x", template="tumour")
