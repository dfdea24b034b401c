"""A logged prediction leads back to what made it, and comes out the same again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from clewline.cli import predictions as command
from clewline.errors import IntegrityError, NotFound
from clewline.project import Project
from clewline.serve import revision as revisions
from clewline.serve.lineage_text import node_text
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.frame import LoggedBatch, LoggedRequest
from clewline.serve.log.writer import LogWriter
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.prediction_lineage import why_prediction
from clewline.serve.prediction_replay import replay_prediction
from clewline.store.ids import id_text, prediction_id
from clewline.store.reader import FILE, CatalogReader

MakeProject = Callable[[Path], Project]


class Served(NamedTuple):
    """A project whose endpoint has answered a batch of three requests."""

    project: Project
    frame: LoggedBatch

    @property
    def ids(self) -> list[str]:
        return [id_text(self.frame.ids[at : at + 16]) for at in range(0, len(self.frame.ids), 16)]


BODIES = (
    b'{"rows": [{"age": 39, "hours": 40.5}, {"age": 97, "hours": 1.25}], "entities": ["p", "q"]}',
    b'{"hours": 12.125, "age": 20}',
    b'{"rows": [{"age": 61, "hours": 50.0}]}',
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, loans: MakeProject) -> Served:
    project = loans(tmp_path_factory.mktemp("loans"))
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        revision = revisions.require_live(reader, "income")
    live = LoadedRevision.load(revision, SharedModels(project))
    read = [live.json_reader.read(body) for body in BODIES]
    parts = [
        LoggedRequest("json", body, len(rows.rows), rows.entities)
        for body, rows in zip(BODIES, read, strict=True)
    ]
    rows = [row for each in read for row in each.rows]
    frame = live.frame(live.answer(rows, [None] * len(rows)), parts)
    live.close()
    with LogWriter(project.log) as log:
        assert log.write_now(frame)
    return Served(project, frame)


def test_every_prediction_comes_out_the_same_in_its_batch_and_alone(served: Served) -> None:
    for row, identifier in enumerate(served.ids):
        result = replay_prediction(served.project, identifier)
        assert result.equal, result.compared
        assert (result.batch_row, result.batch_rows) == (row, 4)
        compared = {one.what: one for one in result.compared}
        assert "= 0x3f" in compared["P(>50K)"].recorded or "= 0x0" in compared["P(>50K)"].recorded
        assert compared["answer of the row alone"].equal


def test_an_answer_that_was_changed_by_one_ulp_differs_and_the_distance_is_told(
    served: Served, tmp_path: Path
) -> None:
    answer = msgspec.json.decode(served.frame.answers[0])
    share = answer["probabilities"][">50K"]
    answer["probabilities"][">50K"] = float(np.nextafter(share, 2.0))
    frame = changed(served.frame, answers=[msgspec.json.encode(answer), *served.frame.answers[1:]])
    result = replay_prediction(with_log(served.project, tmp_path, frame), served.ids[0])
    assert not result.equal
    (differing,) = [one for one in result.compared if one.distance]
    assert (differing.what, differing.distance and differing.distance[:5]) == ("P(>50K)", "1 ULP")
    assert result.differences == ["not-there is not installed, 1.0 at registration"]


def test_a_log_that_names_another_package_than_the_revision_is_refused(
    served: Served, tmp_path: Path
) -> None:
    project = with_log(served.project, tmp_path, changed(served.frame, package="00" * 32))
    with pytest.raises(IntegrityError, match="pins"):
        replay_prediction(project, served.ids[0])
    project = with_log(served.project, tmp_path, changed(served.frame, revision=9))
    with pytest.raises(IntegrityError, match="no such revision"):
        replay_prediction(project, served.ids[0])


def test_a_prediction_that_is_not_logged_is_not_found(served: Served) -> None:
    for function in (replay_prediction, why_prediction):
        with pytest.raises(NotFound, match="is in the log"):
            function(served.project, prediction_id())


def test_the_line_of_a_prediction_leads_to_revision_and_model(served: Served) -> None:
    node = why_prediction(served.project, served.ids[1])
    facts = dict(node_text(node).facts)
    assert node.kind == "prediction"
    assert facts["row"] == "age=97, hours=1.25"
    assert facts["about"] == "q"
    assert facts["flag"].startswith("age 97 is outside bounds [")
    assert facts["batch"].startswith("row 2 of 4, model ")
    (revision,) = node.children
    assert (revision.kind, revision.ref) == ("revision", "income#1")
    assert [child.ref for child in revision.children] == ["income@1"]


def test_the_commands_print_what_was_asked(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_project", lambda: served.project)
    command.list_(limit=3)
    printed = capsys.readouterr()
    assert [row[:36] for row in printed.out.splitlines()] == served.ids[:0:-1]
    assert f"--before {served.ids[1]}" in printed.err
    command.show(served.ids[0])
    assert '{"age":39,"hours":40.5}' in capsys.readouterr().out
    command.compact()
    assert "Compacted 1 segment with 4 predictions" in capsys.readouterr().out
    command.show_replay(replay_prediction(served.project, served.ids[0]))
    assert "Equal, bit for bit." in capsys.readouterr().out


def changed(frame: LoggedBatch, **fields: object) -> LoggedBatch:
    return msgspec.structs.replace(frame, **fields)


def with_log(project: Project, root: Path, frame: LoggedBatch) -> Project:
    """The same project, with another log under it."""
    folder = root / prediction_id()
    folder.mkdir()
    (folder / ".clewline").mkdir()
    for entry in project.store_root.iterdir():
        if entry.name != "log":
            (folder / ".clewline" / entry.name).symlink_to(entry)
    other = Project(folder, project.name, project.id, project.public_key)
    with LogWriter(other.log) as log:
        assert log.write_now(frame)
    return other
