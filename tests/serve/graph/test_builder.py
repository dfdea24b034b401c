"""A graph answers, is logged with the way of each row, and comes out the same again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl
import pytest

from clewline.cli import predictions as command
from clewline.errors import Fault, ModelFailed
from clewline.project import Project
from clewline.serve import revision as revisions
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.graph.routers.router import LearnedStates, record_state
from clewline.serve.lineage_text import node_text
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log import compact as compaction
from clewline.serve.log.frame import LoggedBatch, LoggedRequest
from clewline.serve.log.reader import get_prediction
from clewline.serve.log.writer import LogWriter
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.prediction_lineage import read_prediction, why_prediction
from clewline.serve.prediction_replay import PredictionReplay, replay_prediction
from clewline.serve.shadow_runner import ShadowRunner
from clewline.store.ids import id_text, prediction_ids
from clewline.store.store import Store

Shop = Callable[..., Project]

NODES = """
def younger(rows):
    return [{**row, "age": row["age"] - 1} for row in rows]

def careful(rows):
    if any(row["age"] == 99 for row in rows):
        raise KeyError("ninety-nine")
    return rows

def stern(rows):
    return [{**row, "label": ">50K"} for row in rows]
"""

GRAPH = """
endpoint: all
graph:
  transform: {function: nodes.py:younger, frame: rows}
  route: {kind: sticky, weights: {one: 0.5, more: 0.5}}
  arms:
    one: income@1
    more:
      combine: {kind: mean}
      branches: {a: income@1, b: income@2}
      after: {function: nodes.py:stern, frame: rows}
shadow: [income@challenger]
"""

BODY = b'{"rows": [%b], "entities": [%b]}' % (
    b",".join(b'{"age": %d, "hours": %d.5}' % (20 + i, 30 + i) for i in range(12)),
    b",".join(b'"c-%d"' % i for i in range(12)),
)


class Served(NamedTuple):
    """A project whose endpoint has answered a request, and the frame that was logged."""

    project: Project
    frame: LoggedBatch

    @property
    def ids(self) -> list[str]:
        return [id_text(self.frame.ids[at : at + 16]) for at in range(0, len(self.frame.ids), 16)]


def applied(project: Project, name: str) -> Any:
    with Store.open(project.store_root) as store:
        return revisions.apply(project, store, read_endpoint(project, name)).revision


def answered(loaded: LoadedRevision, body: bytes, *, pieces: int = 1) -> LoggedBatch:
    """Answer a body, in so many batches, as a lane puts them into one frame."""
    read = loaded.json_reader.read(body)
    rows, entities = read.rows, read.entities or [None] * len(read.rows)
    step = -(-len(rows) // pieces)
    done = [
        loaded.answer(rows[at : at + step], entities[at : at + step])
        for at in range(0, len(rows), step)
    ]
    whole = type(done[0])(
        [one for each in done for one in each.ids],
        [one for each in done for one in each.answers],
        [one for each in done for one in each.traces],
    )
    return loaded.frame(whole, [LoggedRequest("json", body, len(rows), read.entities)])


def logged(project: Project, frame: LoggedBatch) -> Served:
    with LogWriter(project.log) as log:
        assert log.write_now(frame)
    return Served(project, frame)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Served:
    root = tmp_path_factory.mktemp("shop")
    project = shop(root, {"nodes.py": NODES, "endpoints/all.yaml": GRAPH})
    revision = applied(project, "all")
    shadows = ShadowRunner(project.shadow)
    loaded = LoadedRevision.load(revision, SharedModels(project), shadowing=shadows)
    frame = answered(loaded, BODY, pieces=3)
    loaded.close()
    shadows.close()
    tally = shadows.counts["all", "challenger"]
    assert tally.agreed + tally.differed == 12
    return logged(project, frame)


def test_each_answer_says_its_arm_and_the_models_behind_it(served: Served) -> None:
    answers = [msgspec.json.decode(answer) for answer in served.frame.answers]
    models = {"one": "income@1", "more": "income@1+income@2"}
    assert {answer["arm"] for answer in answers} == set(models)
    assert all(answer["model"] == models[answer["arm"]] for answer in answers)
    assert all(answer["label"] == ">50K" for answer in answers if answer["arm"] == "more")


def test_the_log_has_the_nodes_arm_and_propensity_of_each_row(served: Served) -> None:
    for row, identifier in enumerate(served.ids):
        found = get_prediction(served.project.log, identifier)
        answer = msgspec.json.decode(found.answer)
        (choice,) = found.route_path.choices
        assert (choice.arm, choice.propensity, found.entity) == (answer["arm"], 0.5, f"c-{row}")
        nodes = [node for node, _ in found.route_path.path]
        assert len(nodes) == (3 if choice.arm == "one" else 6)
        assert all(spent_us >= 0 for _, spent_us in found.route_path.path)
        assert found.package.count("+") == found.route_path.model.count("+")
        assert len(served.frame.checksums[row]) == 4 * len(nodes)


def test_every_prediction_replays_by_the_same_arm_bit_for_bit(served: Served) -> None:
    for identifier in served.ids:
        result = replay_prediction(served.project, identifier)
        assert result.equal, result.compared
        whats = [one.what for one in result.compared]
        assert any(what.startswith("arm by ") for what in whats)
        assert sum(what.startswith("node ") for what in whats) >= 3


def test_a_replay_says_which_node_differs(served: Served, tmp_path: Path) -> None:
    row = [choice.choices[0].arm for choice in map(served.frame.route_path, range(12))].index(
        "more"
    )
    path = [node for node, _ in served.frame.route_path(row).path]
    marks = list(served.frame.checksums)
    changed = bytearray(marks[row])
    changed[4 * path.index("more/b")] ^= 1
    marks[row] = bytes(changed)
    result = replayed(served, tmp_path, row, checksums=marks)
    assert [one.what for one in result.compared if not one.equal] == ["node more/b"]


def test_a_replay_says_when_another_arm_was_logged(served: Served, tmp_path: Path) -> None:
    way = served.frame.route_path(0)
    other = msgspec.structs.replace(way.choices[0], arm="other", propensity=0.25)
    ways = list(served.frame.paths)
    ways[served.frame.path_of_row[0]] = msgspec.structs.replace(way, choices=(other,))
    result = replayed(served, tmp_path, 0, paths=ways)
    differing = {one.what.split(" by ")[0] for one in result.compared if not one.equal}
    assert differing == {"arm", "propensity"}


def replayed(served: Served, root: Path, row: int, **changes: Any) -> PredictionReplay:
    """Replay a row of a frame that was changed after the fact."""
    (root / ".clewline").mkdir()
    for entry in served.project.store_root.iterdir():
        if entry.name != "log":
            (root / ".clewline" / entry.name).symlink_to(entry)
    project = Project(root, "shop", served.project.id, served.project.public_key)
    logged(project, msgspec.structs.replace(served.frame, **changes))
    return replay_prediction(project, served.ids[row])


def test_what_shadows_said_is_shown_beside_the_prediction(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = read_prediction(served.project, served.ids[3]).shadows["challenger"]
    assert said["model"] == "income@2"
    assert said["agrees"] == (
        said["label"] == msgspec.json.decode(served.frame.answers[3])["label"]
    )
    node = why_prediction(served.project, served.ids[3])
    facts = Counter(name for name, _ in node_text(node).facts)
    assert (facts["shadow"], facts["arm"]) == (1, 1)
    monkeypatch.setattr(command, "find_project", lambda: served.project)
    command.show(served.ids[3])
    printed = capsys.readouterr().out
    assert "shadow      challenger (income@2) " in printed
    assert ", propensity 0.5" in printed
    command.show_replay(replay_prediction(served.project, served.ids[3]))
    assert "Equal, bit for bit." in capsys.readouterr().out


def test_compacted_rows_have_model_arm_and_propensity(served: Served) -> None:
    compaction.compact(served.project.log)
    table = pl.read_parquet(compaction.parquet_files(served.project.log)).sort("id")
    assert table["propensity"].to_list() == [0.5] * 12
    assert table["arm"].to_list() == [served.frame.route_path(row).arm for row in range(12)]
    assert set(table["model"]) == {"income@1", "income@1+income@2"}
    assert table["error"].null_count() == 12


def test_a_frame_of_one_model_has_no_byte_for_graphs(
    served: Served, shop: Shop, tmp_path: Path
) -> None:
    project = shop(tmp_path, {"endpoints/one.yaml": "endpoint: one\nmodel: income@1\n"})
    loaded = LoadedRevision.load(applied(project, "one"), SharedModels(project))
    frame = answered(loaded, BODY)
    loaded.close()
    assert (frame.paths, frame.checksums, frame.packages) == ([], [], {})
    assert len(msgspec.msgpack.encode(list(msgspec.structs.astuple(frame)[:9]))) == packed(frame)
    assert replay_prediction(project, logged(project, frame).ids[0]).equal


def packed(frame: LoggedBatch) -> int:
    from clewline.serve.log.frame import HEADER
    from clewline.serve.log.writer import encode_frame

    return len(encode_frame(frame)) - HEADER.size


CAREFUL = """
endpoint: careful
graph:
  transform: {function: nodes.py:careful, frame: rows}
  model: income@1
"""


def test_rows_whose_node_raised_are_logged_and_replay_to_the_same_failure(
    shop: Shop, tmp_path: Path
) -> None:
    project = shop(tmp_path, {"nodes.py": NODES, "endpoints/careful.yaml": CAREFUL})
    loaded = LoadedRevision.load(applied(project, "careful"), SharedModels(project), trial=False)
    body = b'{"rows": [{"age": 99, "hours": 1.5}]}'
    rows, ids = loaded.json_reader.read(body).rows, prediction_ids(1)
    with pytest.raises(ModelFailed, match=r"The node 'careful' raised KeyError") as raised:
        loaded.answer(rows, [None], ids)
    assert raised.value.ids == (id_text(ids[0]),)
    frame = loaded.frame(loaded.failed(raised.value), [LoggedRequest("json", body, 1)])
    loaded.close()
    served = logged(project, frame)
    answer = msgspec.json.decode(frame.answers[0])
    assert answer["error"]["code"] == "model_failed"
    node = why_prediction(project, served.ids[0])
    assert "failed: The node" in node_text(node).title
    assert replay_prediction(project, served.ids[0]).equal
    compaction.compact(project.log)
    assert "KeyError" in pl.read_parquet(compaction.parquet_files(project.log))["error"][0]


def test_a_graph_that_fails_on_its_background_rows_is_not_loaded(
    shop: Shop, tmp_path: Path
) -> None:
    nodes = NODES.replace('row["age"] == 99', 'row["age"] > 0')
    project = shop(tmp_path, {"nodes.py": nodes, "endpoints/careful.yaml": CAREFUL})
    pool = SharedModels(project)
    with pytest.raises(Fault, match=r"careful#1 does not answer .* raised KeyError") as refused:
        LoadedRevision.load(applied(project, "careful"), pool)
    assert not isinstance(refused.value, ModelFailed)


STACK = """
endpoint: stack
graph:
  combine: {kind: stack, model: income@1}
  branches: {age: price@1, b: visits@1}
"""


def test_a_stack_gives_the_answers_of_its_branches_to_a_model(shop: Shop, tmp_path: Path) -> None:
    project = shop(tmp_path, {"endpoints/stack.yaml": STACK})
    pool = SharedModels(project)
    loaded = LoadedRevision.load(applied(project, "stack"), pool)
    fields = [field.name for field in loaded.signature.fields]
    row = dict.fromkeys(fields, 2.0) | {"age": 40}
    frame = answered(loaded, msgspec.json.encode({"rows": [row]}))
    loaded.close()
    assert frame.route_path(0).model == "price@1+visits@1+income@1"
    assert replay_prediction(project, logged(project, frame).ids[0]).equal


LEARNT = """
endpoint: learnt
graph:
  route: {kind: greedy}
  arms: {a: income@1, b: income@2}
"""


def test_a_router_follows_what_was_learned_and_a_replay_takes_the_state_of_then(
    shop: Shop, tmp_path: Path, plug_in: None
) -> None:
    project = shop(tmp_path, {"endpoints/learnt.yaml": LEARNT})
    revision = applied(project, "learnt")
    name = revision.graph["name"]
    with Store.open(project.store_root) as store:
        states = LearnedStates(store.catalog)
        loaded = LoadedRevision.load(revision, SharedModels(project), states=states.of("learnt"))
        served = [logged(project, answered(loaded, BODY))]
        for best in (1, 0):
            record_state(store, "learnt", name, {"best": best, "epsilon": 0.01})
            served.append(logged(project, answered(loaded, BODY)))
            states.refresh()
        served.append(logged(project, answered(loaded, BODY)))
        loaded.close()
    numbers = [{c.state for way in one.frame.paths for c in way.choices} for one in served]
    assert numbers == [{0}, {0}, {1}, {2}]
    assert served[2].frame.route_path(0).choices[0].propensity in (0.995, 0.005)
    for one in served:
        assert replay_prediction(project, one.ids[5]).equal
