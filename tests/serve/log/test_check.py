"""The doctor finds damage of the log, and fixes what can be fixed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clewline.errors import IntegrityError
from clewline.project import Project
from clewline.serve.log.check import check_log, fix_log
from clewline.serve.log.frame import LoggedBatch
from clewline.serve.log.reader import find_prediction
from clewline.serve.log.writer import LogWriter
from clewline.store.ids import id_text

MakeFrame = Callable[..., LoggedBatch]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, "loans", "0123456789abcdef")


@pytest.fixture
def frames(project: Project, frame: MakeFrame) -> list[LoggedBatch]:
    made = [frame(2) for _ in range(5)]
    with LogWriter(project.log) as log:
        for each in made:
            assert log.write_now(each)
    return made


def path_of(project: Project, ending: str) -> Path:
    (found,) = project.log.glob(f"*/*{ending}")
    return found


def found_all(project: Project, frames: list[LoggedBatch]) -> bool:
    return all(
        find_prediction(project.log, id_text(frame.ids[at : at + 16]))
        for frame in frames
        for at in (0, 16)
    )


def test_a_sound_log_and_a_missing_one_have_no_findings(
    project: Project, frames: list[LoggedBatch], tmp_path: Path
) -> None:
    assert check_log(project) == []
    assert check_log(Project(tmp_path / "none", "a", "b")) == []


def test_the_segment_of_a_living_writer_is_no_finding(project: Project, frame: MakeFrame) -> None:
    with LogWriter(project.log) as log:
        assert log.write_now(frame())
        assert check_log(project) == []


def test_any_flipped_byte_of_a_segment_is_found_and_a_fix_does_not_hide_it(
    project: Project, frames: list[LoggedBatch]
) -> None:
    path = path_of(project, ".frames")
    good = path.read_bytes()
    for at in range(0, len(good), 53):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        (finding,) = check_log(project)
        assert (finding.code, str(path) in finding.values["path"]) == ("damaged_frames", True)
        assert check_log(project, deep=False) == []
    fix_log(project)
    assert [finding.code for finding in check_log(project)] == ["damaged_frames"]
    path.write_bytes(good)
    assert found_all(project, frames)


def test_any_flipped_byte_of_an_index_is_found_and_fixed(
    project: Project, frames: list[LoggedBatch]
) -> None:
    good = path_of(project, ".index").read_bytes()
    for at in range(0, len(good), 5):
        path = path_of(project, ".index")
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert [finding.code for finding in check_log(project)] == ["damaged_log_index"], at
        fix_log(project)
        assert check_log(project) == []
        assert found_all(project, frames)


def test_frames_that_were_cut_off_later_are_found(
    project: Project, frames: list[LoggedBatch]
) -> None:
    path = path_of(project, ".frames")
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    fix_log(project)
    assert {finding.code for finding in check_log(project)} == {"damaged_frames"}
    with pytest.raises(IntegrityError):
        find_prediction(project.log, id_text(frames[-1].ids[:16]))


def test_a_closed_segment_that_was_removed_is_found(
    project: Project, frames: list[LoggedBatch]
) -> None:
    path = path_of(project, ".frames")
    path.unlink()
    for deep in (True, False):
        (finding,) = check_log(project, deep=deep)
        assert (finding.code, str(path) in finding.values["path"]) == ("lost_log_segment", True)


def test_the_segment_of_a_killed_writer_is_found_and_fixed(
    project: Project, frames: list[LoggedBatch]
) -> None:
    path_of(project, ".index").unlink()
    path = path_of(project, ".frames")
    path.write_bytes(path.read_bytes()[:-1])
    (finding,) = check_log(project)
    assert finding.code == "unfinished_frame"
    fix_log(project)
    assert check_log(project) == []
    assert found_all(project, frames[:-1])
