"""Inputs are read from the named path, or from the copy that a replay restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from clewline.errors import NotFound
from clewline.flow.step_arguments import InputPaths


def test_a_relative_path_is_resolved_from_the_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "x.csv").touch()
    place = InputPaths(tmp_path / "a").find(Path("../x.csv"))
    assert (place.recorded, place.actual) == (str(tmp_path / "x.csv"), tmp_path / "x.csv")


def test_a_replay_finds_a_moved_input_by_its_old_and_its_new_path(tmp_path: Path) -> None:
    new = tmp_path / "inputs" / "adult"
    new.mkdir(parents=True)
    (new / "adult.data").touch()
    places = InputPaths(Path("/then"), {"/data/adult": str(new), "/then": str(tmp_path / "proj")})
    assert places.find(Path("../data/adult/adult.data")).actual == new / "adult.data"
    assert places.find(new / "adult.data").recorded == "/data/adult/adult.data"


def test_a_replay_reads_nothing_that_is_not_in_the_record(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    with pytest.raises(NotFound, match="not among the inputs"):
        InputPaths(tmp_path, {"/elsewhere": "/x"}).find(tmp_path / "there.csv")
