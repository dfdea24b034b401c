"""A private folder leaves nothing behind, and touches nothing outside it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from clewline.model.runtime.private_folder import PrivateFolder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_what_a_link_points_to_stays_as_it_is(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    outside.chmod(0o755)
    folder = PrivateFolder()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    (folder.path / "link").symlink_to(outside)
    folder.close()
    assert not folder.path.exists()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert (outside / "file").read_text() == "kept"


def test_folders_that_were_made_read_only_are_removed(tmp_path: Path) -> None:
    folder = PrivateFolder()
    inner = folder.path / "a/b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    inner.chmod(0o500)
    inner.parent.chmod(0o500)
    folder.close()
    assert list(tmp_path.iterdir()) == []
