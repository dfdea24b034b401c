"""FileBlobStore in packs and files: what is kept, what is noticed, what is ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import start_process

from clewline.errors import BlobCorrupt, BlobMissing, Fault, StoreFull
from clewline.store import packs
from clewline.store.blobs import LARGE_OVER, FileBlobStore
from clewline.store.digest import Digest, digest_bytes
from clewline.store.packs import HEADER_BYTES, pack_record, scan_pack
from clewline.testing.blob_store import BlobStoreContract

LARGE = b"large " * (LARGE_OVER // 6 + 1)


class TestBlobs(BlobStoreContract):
    """Our blobs keep the contract of stores of blobs."""

    def open(self, folder: Path) -> FileBlobStore:
        return FileBlobStore.create(folder / "blobs")


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobStore:
    return FileBlobStore.create(tmp_path / "blobs")


def pack_files(blobs: FileBlobStore) -> list[Path]:
    return sorted((blobs.root / "packs").glob("*.pack"))


def spoil(path: Path, offset: int) -> None:
    """Flip one bit."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


# Damage


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["packed", "loose"])
def test_a_flipped_byte_is_noticed_on_read(
    blobs: FileBlobStore, tmp_path: Path, data: bytes
) -> None:
    digest = blobs.put(data)
    blobs.close()
    path = pack_files(blobs)[0] if len(data) < LARGE_OVER else blobs._large.path(digest)
    spoil(path, path.stat().st_size - 2)
    for reader in (blobs, FileBlobStore(blobs.root)):
        with pytest.raises(BlobCorrupt, match=digest):
            reader.get(digest)
        with pytest.raises(BlobCorrupt, match=digest):
            reader.copy_to(digest, tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["packed", "loose"])
def test_a_damaged_blob_is_mended_by_storing_it_again(blobs: FileBlobStore, data: bytes) -> None:
    digest = blobs.put(data)
    blobs.close()
    path = pack_files(blobs)[0] if len(data) < LARGE_OVER else blobs._large.path(digest)
    spoil(path, path.stat().st_size - 2)
    again = FileBlobStore(blobs.root)
    again.put(data)
    again.close()
    assert FileBlobStore(blobs.root).get(digest) == data


@settings(max_examples=60)
@given(
    contents=st.lists(st.binary(max_size=200), min_size=1, max_size=12, unique=True),
    where=st.floats(0, 1, exclude_max=True),
)
def test_any_flipped_byte_costs_at_most_the_blob_that_it_stands_in(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], where: float
) -> None:
    blobs = FileBlobStore.create(tmp_path_factory.mktemp("blobs"))
    digests = [blobs.put(content) for content in contents]
    blobs.close()
    path = pack_files(blobs)[0]
    spoil(path, int(where * path.stat().st_size))
    again = FileBlobStore(blobs.root)
    lost = 0
    for digest, content in zip(digests, contents, strict=True):
        try:
            assert again.get(digest) == content
        except (BlobCorrupt, BlobMissing):
            lost += 1
    assert lost == 1


@settings(max_examples=60)
@given(contents=st.lists(st.binary(max_size=80), min_size=1, max_size=8), cut=st.floats(0, 1))
def test_a_pack_that_was_cut_anywhere_keeps_what_is_whole_and_takes_more(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], cut: float
) -> None:
    """However a killed writer left its pack, reading and the next writer go on."""
    root = FileBlobStore.create(tmp_path_factory.mktemp("blobs")).root
    frames = [pack_record(bytes.fromhex(digest_bytes(content)), content) for content in contents]
    whole = b"".join(frames)
    kept = whole[: int(cut * len(whole))]
    (root / "packs" / "0-cut.pack").write_bytes(kept)
    again = FileBlobStore(root)
    end = 0
    for content, framed in zip(contents, frames, strict=True):
        end += len(framed)
        if end <= len(kept):
            assert again.get(digest_bytes(content)) == content
    digest = again.put(b"more, longer than any of the others: " + bytes(100))
    again.close()
    assert len(pack_files(again)) == 1
    found = scan_pack(pack_files(again)[0])
    assert not found.torn
    assert found.damaged == []
    assert FileBlobStore(root).has(digest)


def test_a_pack_with_a_damaged_end_is_left_as_it_is(blobs: FileBlobStore) -> None:
    digest = blobs.put(b"the last blob of its pack")
    blobs.close()
    path = pack_files(blobs)[0]
    spoil(path, 8)
    before = path.read_bytes()
    again = FileBlobStore(blobs.root)
    again.put(b"another")
    again.close()
    assert path.read_bytes() == before
    assert len(pack_files(blobs)) == 2
    spoil(path, 8)
    assert FileBlobStore(blobs.root).get(digest) == b"the last blob of its pack"


def test_a_missing_or_damaged_index_is_done_without(
    blobs: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "INDEX_AFTER", 0)
    digests = [blobs.put(b"%d" % i) for i in range(50)]
    blobs.close()
    index = pack_files(blobs)[0].with_suffix(".idx")
    assert [len(FileBlobStore(blobs.root).get(digest)) for digest in digests] == [1] * 10 + [2] * 40
    for damage in (lambda: spoil(index, 100), lambda: index.write_bytes(b""), index.unlink):
        damage()
        assert sorted(FileBlobStore(blobs.root).digests()) == sorted(digests)


# Packs


def test_a_full_pack_is_followed_by_another(
    blobs: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "FULL_COUNT", 10)
    monkeypatch.setattr(packs, "INDEX_AFTER", 3)
    digests = []
    for i in range(45):
        digests.append(blobs.put(b"%d" % i))
        blobs.flush()
    blobs.close()
    assert len(pack_files(blobs)) == 5
    again = FileBlobStore(blobs.root)
    assert [again.get(digest) for digest in digests] == [b"%d" % i for i in range(45)]
    assert sorted(again.digests()) == sorted(digests)


def test_processes_one_after_another_fill_the_same_pack(blobs: FileBlobStore) -> None:
    for i in range(5):
        again = FileBlobStore(blobs.root)
        again.put(b"%d" % i)
        again.close()
    assert len(pack_files(blobs)) == 1


def test_two_open_stores_never_write_the_same_pack(blobs: FileBlobStore) -> None:
    other = FileBlobStore(blobs.root)
    for i in range(20):
        (blobs if i % 2 else other).put(b"%d" % i)
        blobs.flush()
        other.flush()
    assert len(pack_files(blobs)) == 2
    blobs.close()
    other.close()
    assert len(list(FileBlobStore(blobs.root).digests())) == 20


def test_two_open_stores_of_one_process_take_large_blobs(blobs: FileBlobStore) -> None:
    other = FileBlobStore(blobs.root)
    digests = [each.put(LARGE + end) for each, end in ((blobs, b"1"), (other, b"2"))]
    blobs.close()
    other.close()
    assert all(FileBlobStore(blobs.root).get(digest) for digest in digests)


def test_a_large_blob_may_be_stored_before_and_after_a_fork(blobs: FileBlobStore) -> None:
    digest = blobs.put(LARGE)
    if (child := os.fork()) == 0:
        blobs.put(LARGE)
        blobs.flush()
        os._exit(0 if FileBlobStore(blobs.root).get(digest) == LARGE else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert blobs.get(digest) == LARGE
    blobs.close()
    assert FileBlobStore(blobs.root).get(digest) == LARGE


def test_threads_that_put_the_same_at_once_store_it_once(blobs: FileBlobStore) -> None:
    everyone = threading.Barrier(4)

    def work() -> None:
        for i in range(20):
            everyone.wait()
            blobs.put(b"small %d" % i)
        everyone.wait()
        blobs.put(LARGE)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(list((blobs.root / "incoming").iterdir())) == 1
    blobs.flush()
    assert blobs._buffered_bytes == 0


def test_content_that_is_stored_takes_no_more_space(blobs: FileBlobStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    for _ in range(3):
        again = FileBlobStore(blobs.root)
        again.put(b"small")
        again.put(LARGE)
        again.put_file(tmp_path / "file")
        again.close()
    files = [path for path in blobs.root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) == len(LARGE) + HEADER_BYTES + len(b"small")


# Kill and full disk


WRITER = """
import sys
from pathlib import Path
from clewline.store.blobs import FileBlobStore
blobs = FileBlobStore(Path(sys.argv[1]))
i = 0
while True:
    group = [blobs.put(b"%s %d %d " % (sys.argv[2].encode(), i, k) * 50) for k in range(20)]
    if i % 10 == 0:
        group.append(blobs.put(b"%s large %d" % (sys.argv[2].encode(), i) * 100_000))
    blobs.flush()
    print(*group, flush=True)
    i += 1
"""


def test_writers_that_are_killed_lose_nothing_that_they_flushed(blobs: FileBlobStore) -> None:
    """Three processes write at once and are killed at any moment, three times over."""
    promised: set[Digest] = set()
    for round_ in range(3):
        writers = [
            start_process(
                [sys.executable, "-c", WRITER, str(blobs.root), f"{round_}-{n}"],
                stdout=subprocess.PIPE,
            )
            for n in range(3)
        ]
        for writer in writers:
            assert writer.stdout is not None
            promised.update(_digests(writer.stdout.readline()))
        time.sleep(0.05 + 0.07 * round_)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        for writer in writers:
            promised.update(*(_digests(line) for line in writer.communicate()[0].splitlines(True)))
    again = FileBlobStore(blobs.root)
    assert promised <= set(again.digests())
    for digest in again.digests():
        assert digest_bytes(again.get(digest)) == digest
    again.put(b"and on it goes")
    again.close()
    assert not list((blobs.root / "incoming").iterdir())
    assert not any(scan_pack(path).torn for path in pack_files(blobs))


def _digests(line: bytes) -> list[Digest]:
    """The digests of a line that was written whole."""
    return [Digest(word) for word in line.decode().split()] if line.endswith(b"\n") else []


FULL = """
import resource, sys
from pathlib import Path
from clewline.errors import StoreFull
from clewline.store.blobs import FileBlobStore
blobs = FileBlobStore(Path(sys.argv[1]))
first = blobs.put(b"before")
blobs.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
small = [blobs.put(b"%d" % i * 1000) for i in range(200)]
for write in (blobs.flush, blobs.flush, lambda: blobs.put(b"large" * 400_000)):
    try:
        write()
        sys.exit("nothing was refused")
    except StoreFull as error:
        print(error)
assert blobs.get(small[-1]) == b"199" * 1000
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
blobs.put(b"large" * 400_000)
blobs.close()
again = FileBlobStore(Path(sys.argv[1]))
assert [again.get(digest) for digest in small] == [b"%d" % i * 1000 for i in range(200)]
assert again.get(first) == b"before"
assert len(list(again.digests())) == 202
"""


def test_on_a_full_disk_what_was_put_waits_for_space(blobs: FileBlobStore) -> None:
    """A limit on the size of files fails like a disk without space."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(blobs.root)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("is full") == 3
    assert not any(scan_pack(path).torn for path in pack_files(blobs))


def test_on_a_full_file_system_nothing_is_half_stored(blobs_on_tmpfs: FileBlobStore) -> None:
    """A real file system of 1 MiB runs full, and has space again."""
    blobs = blobs_on_tmpfs
    kept = blobs.put(b"kept")
    blobs.flush()
    small = [blobs.put(bytes([i]) * 10_000) for i in range(150)]
    with pytest.raises(StoreFull, match="full"):
        blobs.flush()
    with pytest.raises(StoreFull, match="full"):
        blobs.put(LARGE)
    assert not list((blobs.root / "incoming").iterdir())
    other = FileBlobStore(blobs.root)
    assert other.get(kept) == b"kept"
    assert all(digest_bytes(other.get(digest)) == digest for digest in other.digests())
    assert not any(scan_pack(path).torn for path in pack_files(blobs))
    subprocess.run(["mount", "-o", "remount,size=8M", str(blobs.root.parent)], check=True)
    blobs.close()
    assert all(FileBlobStore(blobs.root).has(digest) for digest in small)


def test_after_a_failed_fsync_nothing_more_is_trusted(
    blobs: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops what it could not write and says so once."""
    kept = blobs.put(b"kept")
    blobs.flush()
    blobs.put(b"one")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(Fault, match="Input/output"):
            blobs.flush()
    assert blobs.get(kept) == b"kept"
    for _ in range(2):
        with pytest.raises(Fault, match="durable"):
            blobs.flush()


@pytest.mark.parametrize("moment", ["at the end", "before the next pack"])
def test_what_a_failed_fsync_lost_is_never_called_durable(
    blobs: FileBlobStore, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The index of a pack says what need not be synchronised any more."""
    monkeypatch.setattr(packs, "FULL_COUNT", 3)
    for i in range(3):
        blobs.put(b"%d" % i)
    blobs._write_buffer()
    if moment == "before the next pack":
        blobs.put(b"begins the next pack")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(Fault, match="Input/output"):
            blobs.flush()
    with pytest.raises(Fault, match="durable"):
        blobs.close()
    assert not list((blobs.root / "packs").glob("*.idx"))


def test_a_full_disk_is_no_lasting_harm_wherever_it_is_noticed(
    blobs_on_tmpfs: FileBlobStore,
) -> None:
    """Space for the bytes of a large blob, and then none for the folder that it belongs in."""
    blobs, place = blobs_on_tmpfs, blobs_on_tmpfs.root.parent
    remount = ["mount", "-o", "remount,size=16M,nr_inodes={}", str(place)]
    subprocess.run([each.format(1000) for each in remount], check=True)
    digests = [blobs.put(LARGE + bytes([i])) for i in range(2)]
    used = 1000 - os.statvfs(place).f_ffree
    subprocess.run([each.format(used + 1) for each in remount], check=True)
    with pytest.raises(StoreFull):
        blobs.flush()
    subprocess.run([each.format(1000) for each in remount], check=True)
    blobs.close()
    assert all(FileBlobStore(blobs.root).get(digest) for digest in digests)


def test_large_blobs_whose_admission_stopped_halfway_are_admitted_by_the_next_flush(
    blobs: FileBlobStore,
) -> None:
    digests = [blobs.put(LARGE + bytes([i])) for i in range(3)]
    blocked = blobs._large.path(digests[1])
    blocked.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        blobs.flush()
    blocked.rmdir()
    assert all(blobs.get(digest) for digest in digests)
    blobs.close()
    assert all(FileBlobStore(blobs.root).get(digest) for digest in digests)


def test_blobs_of_another_process_are_made_durable_before_they_are_relied_on(
    blobs: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record may name what another process wrote and did not yet synchronise."""
    other = FileBlobStore(blobs.root)
    other.put(b"written, not synchronised")
    other._write_buffer()
    blobs._packs.refresh()
    blobs.put(b"written, not synchronised")
    synchronised: list[str] = []
    fsync = os.fsync

    def watched(file: int) -> None:
        synchronised.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    blobs.flush()
    assert str(pack_files(blobs)[0]) in synchronised
    assert len(pack_files(blobs)) == 1


def test_blobs_that_a_killed_writer_left_are_made_durable_before_they_are_relied_on(
    blobs: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes on with its pack cannot know what it had come to synchronise."""
    if (child := os.fork()) == 0:
        blobs.put(b"written, not synchronised")
        blobs._write_buffer()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    synchronised: list[str] = []
    fsync = os.fsync

    def watched(file: int) -> None:
        synchronised.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    blobs.recover()
    blobs.put(b"written, not synchronised")
    blobs.flush()
    assert synchronised == [str(pack_files(blobs)[0])]


def test_a_large_blob_takes_its_name_only_when_its_bytes_are_durable(
    blobs: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power loss a name would otherwise stand for a part of the blob."""
    digest = blobs.put(LARGE)
    stored = blobs._large.path(digest)
    synchronised: list[tuple[str, bool]] = []
    fsync = os.fsync

    def watched(file: int) -> None:
        synchronised.append((os.readlink(f"/proc/self/fd/{file}"), stored.exists()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    blobs.flush()
    aside, *folders = synchronised
    assert Path(aside[0]).parent == blobs.root / "incoming"
    assert not aside[1]
    assert (str(stored.parent), True) in folders
    assert (str(stored.parent.parent), True) in folders
