"""A snapshot holds the code as it really was, and restores it."""

import os
import subprocess
import time

import pytest

from clewline.errors import IntegrityError
from clewline.flow.code import snapshot as snapshots
from clewline.flow.code.snapshot import Snapshot, restore, take
from clewline.store import Store


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    write(root, "pipelines.py", "x = 1\n")
    write(root, "pkg/helpers.py", "y = 1\n")
    write(root, ".venv/lib/foreign.py", "no\n")
    return root


@pytest.fixture
def blobs(project):
    with Store.create(project / ".clewline") as store:
        yield store.blobs


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def git(root, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def commit(root):
    write(root, ".gitignore", "ignored.txt\n.clewline/\n.venv/\n")
    write(root, "ignored.txt", "x")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "one")


def tree(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("with_git", [True, False])
def test_a_store_or_environment_that_is_a_link_to_another_disk_is_not_part_of_the_code(
    project, blobs, tmp_path, with_git
):
    if with_git:
        commit(project)
    (project / "venv").symlink_to(tmp_path)
    assert "venv" not in take(project, blobs).files


def test_without_git_all_own_files_are_taken_and_count_as_changed(project, blobs):
    taken = take(project, blobs)
    assert taken.commit is None
    assert sorted(taken.files) == taken.changed == ["pipelines.py", "pkg/helpers.py"]


def test_with_git_the_commit_and_the_changes_since_are_recorded(project, blobs):
    commit(project)
    clean = take(project, blobs)
    assert clean.changed == []
    assert len(clean.commit) == 40
    write(project, "pipelines.py", "x = 2\n")
    write(project, "new.py", "z\n")
    (project / "pkg" / "helpers.py").unlink()
    dirty = take(project, blobs)
    assert dirty.commit == clean.commit
    assert dirty.changed == ["new.py", "pipelines.py", "pkg/helpers.py"]
    assert sorted(dirty.files) == [".gitignore", "new.py", "pipelines.py"]


def test_a_project_in_a_subfolder_of_a_repository_has_paths_relative_to_itself(
    tmp_path, project, blobs
):
    write(tmp_path, "outside.py", "no\n")
    commit(tmp_path)
    write(project, "pipelines.py", "x = 3\n")
    taken = take(project, blobs)
    assert taken.changed == ["pipelines.py"]
    assert sorted(taken.files) == ["pipelines.py", "pkg/helpers.py"]


def test_a_repository_without_a_commit_can_be_taken(project, blobs):
    git(project, "init", "-q")
    taken = take(project, blobs)
    assert taken.commit is None
    assert taken.changed == ["pipelines.py", "pkg/helpers.py"]


def test_a_restore_gives_back_every_file(project, blobs, tmp_path):
    write(project, "run.sh", "#!/bin/sh\n").chmod(0o755)
    write(project, "häßlich näme.txt", "ü\n")
    (project / "link.py").symlink_to("pipelines.py")
    taken = Snapshot.decode(take(project, blobs).encode())
    restore(taken, blobs, tmp_path / "again")
    expected = {
        name: data
        for name, data in tree(project).items()
        if not name.startswith((".clewline", ".venv"))
    }
    assert tree(tmp_path / "again") == expected
    assert os.access(tmp_path / "again" / "run.sh", os.X_OK)
    assert os.readlink(tmp_path / "again" / "link.py") == "pipelines.py"
    assert take(tmp_path / "again", blobs).files == taken.files


def test_an_unchanged_file_is_not_read_again(project, blobs, monkeypatch):
    take(project, blobs)
    time.sleep(0.1)  # until the files are older than the clock's resolution
    take(project, blobs)
    monkeypatch.setattr(blobs, "put", None)  # so that reading a file again fails
    assert take(project, blobs).files


def test_an_edit_that_leaves_size_and_mtime_is_noticed(project, blobs):
    path = project / "pipelines.py"
    first = take(project, blobs)
    for at in range(5):
        status = path.stat()
        path.write_text(f"x = {at + 2}\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        again = take(project, blobs)
        assert again.files["pipelines.py"] != first.files["pipelines.py"]
        first = again


def test_a_blob_that_was_lost_is_stored_again(project, blobs, tmp_path):
    take(project, blobs)
    time.sleep(0.1)
    take(project, blobs)
    with Store.create(tmp_path / "other") as other:
        restore(take(project, other.blobs), other.blobs, tmp_path / "again")


def test_a_file_too_big_to_be_code_is_named_and_not_kept(project, blobs, monkeypatch, tmp_path):
    monkeypatch.setattr(snapshots, "LARGEST_BYTES", 100)
    write(project, "big.csv", "x" * 101)
    taken = take(project, blobs)
    assert taken.large == {"big.csv": 101}
    assert taken.files["big.csv"] not in taken.blobs()
    assert not blobs.has(taken.files["big.csv"])
    restore(taken, blobs, tmp_path / "again")
    assert not (tmp_path / "again" / "big.csv").exists()


@pytest.mark.parametrize("name", ["../out.py", "/out.py", "a/../../out.py"])
def test_a_snapshot_cannot_write_outside_of_its_folder(blobs, tmp_path, name):
    forged = Snapshot(commit=None, changed=[], files={name: blobs.put(b"x")})
    with pytest.raises(IntegrityError, match="leads out"):
        restore(forged, blobs, tmp_path / "again")
