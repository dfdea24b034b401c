"""What is changed in a closed file of the log is found, also where its checksum was made anew."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import make_project

from clewline.project import Project
from clewline.serve.log import seals
from clewline.serve.log.check import check_log
from clewline.serve.log.compact import compact, parquet_files
from clewline.serve.log.frame import COUNTS, HEADER, MAGIC, LoggedBatch
from clewline.serve.log.seals import check_seals, closed_files, fix_seals, seal_files, seal_removals
from clewline.serve.log.writer import LogWriter

MakeFrame = Callable[..., LoggedBatch]


@pytest.fixture
def project(tmp_path: Path, frame: MakeFrame, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a closed segment and its Parquet file, sealed."""
    monkeypatch.setattr(seals, "YOUNG_S", -1.0)
    made = make_project(tmp_path)
    with LogWriter(made.log) as log:
        for _ in range(5):
            assert log.write_now(frame(2))
    compact(made.log)
    seal_files(made, closed_files(made))
    assert len(closed_files(made)) == 2
    return made


def codes(project: Project, **how: bool) -> list[str]:
    return [finding.code for finding in check_seals(project, **how)]


def test_what_was_sealed_and_not_changed_has_no_finding(project: Project) -> None:
    assert codes(project) == []


def test_a_flipped_byte_of_a_parquet_file_is_found(project: Project) -> None:
    (path,) = parquet_files(project.log)
    good = path.read_bytes()
    for at in range(0, len(good), 97):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert codes(project) == ["changed_log_file"]
    fix_seals(project)  # a file that has a link is not sealed again
    assert codes(project) == ["changed_log_file"]
    path.write_bytes(good)
    assert codes(project) == []


def test_an_answer_that_was_rewritten_with_its_checksum_is_found(project: Project) -> None:
    (path,) = project.log.glob("*/*.frames")
    data = bytearray(path.read_bytes())
    magic, length, count, keyed, _ = HEADER.unpack_from(data)
    assert magic == MAGIC
    at = data.index(b'"label":"')
    data[at + 9] ^= 1
    body = data[HEADER.size : HEADER.size + length]
    checksum = zlib.crc32(body, zlib.crc32(COUNTS.pack(length, count, keyed)))
    HEADER.pack_into(data, 0, magic, length, count, keyed, checksum)
    path.write_bytes(data)
    assert check_log(project) == []  # the checksum is right
    assert codes(project) == ["changed_log_file"]
    for parquet in parquet_files(project.log):
        parquet.unlink()
    sealed = {path: "0" * 64}
    done = compact(project.log, sealed)
    assert (done.segments, done.files) == (0, [])
    assert "changed since it was sealed" in done.unreadable[0]


def test_a_removed_segment_is_found_with_or_without_its_index(project: Project) -> None:
    (path,) = project.log.glob("*/*.frames")
    (index,) = project.log.glob("*/*.index")
    kept = path.read_bytes()
    index.unlink()
    path.unlink()
    assert codes(project) == codes(project, deep=False) == ["removed_log_file"]
    path.write_bytes(kept)
    assert codes(project) == []
    path.unlink()
    assert seal_removals(project) == [str(path.relative_to(project.store_root))]
    assert codes(project) == seal_removals(project) == []
    path.write_bytes(kept + b"more")
    assert codes(project) == ["changed_log_file"]


def test_files_that_a_killed_process_did_not_seal_are_sealed_by_a_fix(
    project: Project, frame: MakeFrame
) -> None:
    with LogWriter(project.log) as log:
        assert log.write_now(frame(1))
    (finding,) = check_seals(project)
    assert (finding.code, finding.fixable) == ("unsealed_log_files", True)
    project.private_key.rename(project.root / "key")
    fix_seals(project)  # a machine without the key can do nothing, and that is no fault of its
    (finding,) = check_seals(project)
    assert finding.harmless
    (project.root / "key").rename(project.private_key)
    fix_seals(project)
    assert codes(project) == []
