"""
The contract of a store of blobs.

    class TestMyBlobs(BlobStoreContract):
        def open(self, folder: Path) -> BlobStore:
            return MyBlobs(folder)

`open` with the same folder opens the same store again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clewline.errors import BlobMissing
from clewline.store.blobs import BlobStore
from clewline.store.digest import digest_bytes

SIZES = (0, 1, 47, 4096, (1 << 20) - 1, (1 << 20) + 1, 5 << 20)
"""Sizes of blobs in bytes; most stores keep the larger ones as separate files."""


class BlobStoreContract:
    """Tests that every store of blobs passes."""

    def open(self, folder: Path) -> BlobStore:
        """Open the store in a folder, and create it if it does not exist."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[BlobStore]:
        store = self.open(tmp_path / "store")
        yield store
        store.close()

    @pytest.mark.parametrize("size", SIZES)
    def test_a_blob_is_read_at_once_and_after_reopening(self, tmp_path: Path, size: int) -> None:
        data = _content(size)
        store = self.open(tmp_path)
        digest = store.put(data)
        assert digest == digest_bytes(data)
        assert store.has(digest)
        assert store.get(digest) == data
        store.flush()
        assert store.get(digest) == data
        store.close()
        again = self.open(tmp_path)
        assert again.has(digest)
        assert again.get(digest) == data
        again.close()

    @pytest.mark.parametrize("size", SIZES)
    def test_a_file_gives_the_same_blob_as_its_bytes(
        self, store: BlobStore, tmp_path: Path, size: int
    ) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(_content(size))
        digest = store.put_file(source)
        assert digest == store.put(source.read_bytes())
        store.copy_to(digest, target)
        store.flush()
        store.copy_to(digest, target)
        assert target.read_bytes() == source.read_bytes()

    def test_a_blob_that_was_never_put_is_missing(self, store: BlobStore, tmp_path: Path) -> None:
        nowhere = digest_bytes(b"never put")
        assert not store.has(nowhere)
        with pytest.raises(BlobMissing):
            store.get(nowhere)
        with pytest.raises(BlobMissing):
            store.copy_to(nowhere, tmp_path / "target")
        assert not (tmp_path / "target").exists()

    def test_every_digest_is_listed_once(self, store: BlobStore) -> None:
        put = {store.put(_content(size)) for size in SIZES for _ in range(2)}
        store.flush()
        put.add(store.put(b"one more"))
        assert sorted(store.digests()) == sorted(put)

    def test_a_flushed_blob_is_seen_by_a_store_that_was_open_before(self, tmp_path: Path) -> None:
        writer, reader = self.open(tmp_path), self.open(tmp_path)
        digests = [writer.put(_content(size)) for size in SIZES]
        writer.flush()
        assert all(reader.has(digest) for digest in digests)
        assert [len(reader.get(digest)) for digest in digests] == list(SIZES)
        writer.close()
        reader.close()

    def test_a_flush_of_nothing_does_nothing(self, store: BlobStore) -> None:
        store.flush()
        store.flush()
        assert list(store.digests()) == []

    def test_threads_may_put_and_read_at_once(self, store: BlobStore) -> None:
        def work(thread: int) -> None:
            for i in range(200):
                data = b"shared %d" % i if i % 2 else b"own %d %d" % (thread, i)
                assert store.get(store.put(data)) == data
                if i % 50 == 0:
                    store.flush()

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        assert len(list(store.digests())) == 100 + 4 * 100


def _content(size: int) -> bytes:
    return (b"%d bytes of it; " % size * (size // 16 + 1))[:size]
