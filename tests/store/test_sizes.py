"""The parts of a store are measured by their files."""

from __future__ import annotations

from pathlib import Path

from clewline.store.sizes import store_sizes


def test_each_file_counts_for_its_part(tmp_path: Path) -> None:
    for name, size in {
        "catalog.db": 10,
        "catalog.db-wal": 5,
        "blobs/packs/a": 100,
        "blobs/b": 1,
        "models/income/1/model": 50,
        "keys/seal.key": 3,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / "blobs" / "link").symlink_to(tmp_path / "models")
    found = {each.part: (each.files, each.size_bytes) for each in store_sizes(tmp_path)}
    link = (tmp_path / "blobs" / "link").lstat().st_size
    assert found == {
        "catalog": (2, 15),
        "blobs": (3, 101 + link),
        "models": (1, 50),
        "log": (0, 0),
        "shadow": (0, 0),
        "explain": (0, 0),
        "rest": (1, 3),
    }


def test_a_store_that_is_not_there_has_no_size(tmp_path: Path) -> None:
    assert all(each.size_bytes == 0 for each in store_sizes(tmp_path / "gone"))
