"""The line back and the line forward."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clewline.errors import NotFound, UsageError
from clewline.serve.lineage_text import node_text
from clewline.store.digest import Digest, digest_bytes
from clewline.store.lineage import LineageNode, impact, why
from clewline.store.records import (
    Alias,
    Artifact,
    Edge,
    LiveRevision,
    ModelVersion,
    Record,
    Revision,
    Run,
    SeenFile,
    StepRun,
)
from clewline.store.ref import ReadPath, resolve
from clewline.store.store import Store

if TYPE_CHECKING:
    from conftest import Line

RUN = "4f9a2c81d0be"


def facts(node: LineageNode, *, forward: bool = False) -> dict[str, str]:
    return dict(node_text(node, forward=forward).facts)


def outline(node: LineageNode) -> list[str]:
    """The tree as lines `kind title`, indented."""
    lines = [f"{node.kind} {node_text(node).title}"]
    return lines + [f"  {line}" for child in node.children for line in outline(child)]


def back(store: Store, text: str, *, full: bool = False) -> LineageNode:
    return why(store.catalog.reader, resolve(store.catalog.reader, text), full=full)


def forward(store: Store, text: str, *, full: bool = False) -> LineageNode:
    reader = store.catalog.reader
    return impact(reader, resolve(reader, text, prefer="model"), full=full)


# What a person types


def test_everything_is_found_by_what_a_person_types(line: Line) -> None:
    expected = {
        RUN: ("run", RUN),
        "4f9a": ("run", RUN),
        f"{RUN}/02-fit": ("step", f"{RUN}/02-fit"),
        "4f9a/02": ("step", f"{RUN}/02-fit"),
        "income@1": ("model", "income@1"),
        "income@champion": ("model", "income@1"),
        "income#1": ("revision", "income#1"),
        "income": ("revision", "income#1"),
        line.train.digest: ("artifact", line.train.digest),
        line.train.digest[:8]: ("artifact", line.train.digest),
        line.train.blob[:10]: ("artifact", line.train.digest),
        line.snapshot[:9]: ("code", line.snapshot),
        digest_bytes(b"package")[:12]: ("model", "income@1"),
        str(line.folder): ("artifact", line.data.digest),
    }
    for text, (kind, identifier) in expected.items():
        found = resolve(line.store.catalog.reader, text)
        assert (found.kind, found.id) == (kind, identifier), text


def test_a_name_of_both_means_what_is_preferred(line: Line) -> None:
    assert resolve(line.store.catalog.reader, "income", prefer="model").id == "income@1"


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("incme@1", "income@1"), ("income#7", "income#1"), ("income@champon", "income@champion")],
)
def test_what_is_not_there_names_the_nearest(line: Line, typed: str, nearest: str) -> None:
    with pytest.raises(NotFound, match=nearest):
        resolve(line.store.catalog.reader, typed)


@pytest.mark.parametrize(
    "typed", ["", "4f9", "@", "#", "/", "income@", "x#1", "deadbeefdead", "é@²"]
)
def test_nothing_is_found_by_less_or_by_chance(line: Line, typed: str) -> None:
    with pytest.raises(NotFound):
        resolve(line.store.catalog.reader, typed)


def test_a_beginning_of_two_runs_asks_for_more(line: Line) -> None:
    line.store.record(line.run(id="4f9affffffff"))
    with pytest.raises(UsageError, match=r"4f9a2c81d0be, 4f9affffffff.*Type more"):
        resolve(line.store.catalog.reader, "4f9a")


def test_a_file_is_found_by_what_it_holds_wherever_it_lies(line: Line, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"table")
    found = resolve(line.store.catalog.reader, str(tmp_path / "copy"))
    assert (found.id, found.read) == (line.table.digest, None)
    (tmp_path / "other").write_bytes(b"never read")
    with pytest.raises(NotFound, match="No run of this project has read"):
        resolve(line.store.catalog.reader, str(tmp_path / "other"))


def test_a_file_that_changed_since_it_was_read_says_so(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    first, second = line.artifact(b"first", "file"), line.artifact(b"second", "file")
    line.store.record(
        first,
        second,
        line.run(id="0" * 12, started=1.0),
        line.run(id="1" * 12, started=2.0),
        SeenFile(path=str(path), digest=first.digest, run="1" * 12),
        SeenFile(path=str(path), digest=second.digest, run="0" * 12),
    )
    path.write_bytes(b"third")
    found = resolve(line.store.catalog.reader, str(path))
    assert found.id == first.digest
    assert found.read == ReadPath(str(path), changed=True, earlier=1)


# Back


def test_why_of_a_revision_is_read_in_ten_seconds(line: Line) -> None:
    """Revision, version with its equality record, run with params and metrics, code, data."""
    node = back(line.store, "income")
    assert outline(node) == [
        "revision income#1",
        "  model income@1",
        f"    run {RUN}  income",
        "      code commit 0123456789ab",
        f"      data {line.folder}",
    ]
    model = node.children[0]
    assert (
        "verified equal on 20,281 rows, no number off by more than 6e-07"
        in facts(model)["served by"]
    )
    assert "now champion" in facts(model)["registered"]
    assert "trained on 32,561 rows" in facts(model)["tables"]
    run = model.children[0]
    assert facts(run)["params"].endswith("/adult, trees=100, seed 0")
    assert facts(run)["metrics"] == "accuracy 0.8531, auc 0.9021"
    code, data = run.children
    assert facts(code)["changed files"] == "pipelines.py, nodes.py"
    assert facts(data)["rows"] == "48,842 rows × 15 columns"
    assert data.ref == line.data.digest


def test_every_ref_of_the_tree_can_be_asked_about(line: Line) -> None:
    def refs(node: LineageNode) -> Iterator[str]:
        yield node.ref
        for child in node.children:
            yield from refs(child)

    for full in (False, True):
        for tree in (back(line.store, "income", full=full), forward(line.store, RUN, full=full)):
            assert all(back(line.store, ref).ref == ref for ref in refs(tree))


def test_full_draws_every_step_out_once(line: Line) -> None:
    lines = outline(back(line.store, "income@1", full=True))
    for step in ("00-load", "02-fit", "03-register"):
        assert sum(f"{RUN}/{step}" in each for each in lines) == 1
    assert sum(each.strip() == f"data {line.folder}" for each in lines) == 1


def test_why_of_an_artifact_names_the_step_that_made_it(line: Line) -> None:
    node = back(line.store, line.train.digest)
    assert facts(node)["made by"] == f"{RUN}/01-split"
    assert f"  run {RUN}  income" in outline(node)
    assert f"    data {line.folder}" in outline(node)


def test_a_run_that_took_everything_from_the_cache_leads_to_the_same_data(line: Line) -> None:
    """A cached step rests on the one that worked."""
    again = "0123456789ab"
    step = line.step("00-load", {}, line.table, run=again)
    line.store.record(
        line.run(id=again),
        step,
        Edge(source=f"step:{RUN}/00-load", target=f"step:{again}/00-load", role="cached"),
    )
    assert f"  data {line.folder}" in outline(back(line.store, again))


def test_data_that_no_path_gave_is_named_by_its_step(line: Line) -> None:
    other = "abcdef012345"
    line.store.record(line.run(id=other), line.step("00-load", {}, line.table, run=other))
    lines = outline(back(line.store, other))
    assert f"  data made by {other}/00-load" in lines


def test_a_version_that_is_not_compiled_says_why(line: Line) -> None:
    reason = {"verified": False, "reason": "KNeighbors has no exact form"}
    line.store.record(line.version(number=2, equality=reason, runtime="sklearn"))
    assert "KNeighbors has no exact form" in facts(back(line.store, "income@2"))["served by"]


# Forward


def test_impact_of_a_folder_leads_to_what_answers(line: Line) -> None:
    assert outline(forward(line.store, str(line.folder))) == [
        f"data {line.folder}",
        f"  run {RUN}  income",
        "    model income@1",
        "      revision income#1",
    ]


def test_impact_of_a_revision_says_where_its_answers_are(line: Line) -> None:
    node = forward(line.store, "income#1")
    assert facts(node, forward=True)["answers"] == "`clewline predictions list --endpoint income`"


def test_impact_of_a_split_table_does_not_blame_its_siblings(line: Line) -> None:
    """What was only tested on a table is reached; what neither read nor rests on it is not."""
    alone = line.artifact(b"alone", "table", rows=1)
    line.store.record(alone, line.step("04-plot", {"table": alone}))
    assert outline(forward(line.store, alone.digest)) == [
        "artifact table",
        f"  run {RUN}  income",
    ]
    assert "    model income@1" in outline(forward(line.store, line.test.digest))


def test_impact_of_a_run_reaches_the_runs_that_took_from_it(line: Line) -> None:
    later = "0123456789ab"
    line.store.record(
        line.run(id=later, started=1_790_000_500.0),
        line.step("00-load", {}, line.table, run=later),
        line.step("01-register", {"train": line.table}, run=later),
        Edge(source=f"step:{RUN}/00-load", target=f"step:{later}/00-load", role="cached"),
        Edge(
            source=f"step:{later}/00-load", target=f"step:{later}/01-register", role="input:train"
        ),
        line.version(number=2, run=later, step_run=f"{later}/01-register"),
    )
    lines = outline(forward(line.store, RUN))
    assert lines[1] == "  model income@1"
    assert f"  run {later}  income" in lines
    assert "    model income@2" in lines
    assert "    model income@2" in outline(forward(line.store, str(line.folder)))


def test_impact_of_code_leads_to_its_runs(line: Line) -> None:
    assert f"  run {RUN}  income" in outline(forward(line.store, line.snapshot))


def test_a_long_list_of_runs_is_cut_and_says_so(line: Line) -> None:
    for i in range(30):
        run = f"{i:012x}"
        line.store.record(line.run(id=run), line.step("00-load", {"data": line.data}, run=run))
    node = forward(line.store, str(line.folder))
    assert (len(node.children), node.omitted) == (20, 11)
    assert node.children[0].ref == RUN  # it led to a model
    assert len(forward(line.store, str(line.folder), full=True).children) == 31


def test_a_line_as_long_as_it_may_be_is_followed(line: Line) -> None:
    """Deeper than Python's stack."""
    run, count = "abcdef012345", sys.getrecursionlimit() + 200
    steps = [line.step(f"{i:05d}-s", {}, run=run) for i in range(count)]
    steps = [
        StepRun(id=step.id, run=run, index=i, name="s", status="done", started=1.0)
        for i, step in enumerate(steps)
    ]
    edges = [
        Edge(source=f"step:{a.id}", target=f"step:{b.id}", role="input:x")
        for a, b in pairwise(steps)
    ]
    line.store.record(line.run(id=run), *steps, *edges)
    depth, node = 0, back(line.store, steps[-1].id, full=True)
    while node.children:
        depth, node = depth + 1, node.children[0]
    assert depth == count - 1
    assert back(line.store, run).children[0].kind == "code"


# The law


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """
    Runs that go on at the same time: each step takes what any ended step gave.

    Written as a recording does it: edges come into being with the event that they
    lead to, so that nothing can rest on what comes after it.
    """
    runs = [f"{n:012x}" for n in range(draw(st.integers(1, 3)))]
    code = digest_bytes(b"code")
    records: list[Record] = []
    for run in runs:
        records.append(
            Run(id=run, pipeline="p", status="done", snapshot=code, started=float(len(records)))
        )
        records.append(Edge(source=f"code:{code}", target=f"run:{run}", role="code"))
    ended: list[str] = []
    artifacts: list[Digest] = [digest_bytes(b"data")]
    records.append(_artifact(artifacts[0]))
    counts = dict.fromkeys(runs, 0)
    versions = 0
    for _ in range(draw(st.integers(1, 12))):
        run = draw(st.sampled_from(runs))
        step = f"{run}/{counts[run]:02d}-s"
        own = [each for each in ended if each.startswith(run)]
        taken = draw(st.lists(st.sampled_from(own), unique=True, max_size=3)) if own else []
        data = draw(st.sampled_from(artifacts))
        gives = draw(st.sampled_from([*artifacts, digest_bytes(step.encode())]))
        cached = draw(st.sampled_from([None, *ended]))
        records.append(
            StepRun(
                id=step,
                run=run,
                index=counts[run],
                name="s",
                status="cached" if cached else "done",
                cached_from=cached,
                inputs={"data": {"artifact": data}},
                outputs=[gives],
                started=float(len(records)),
            )
        )
        records.append(Edge(source=f"input:{data}", target=f"step:{step}", role="input:data"))
        records += [
            Edge(source=f"step:{each}", target=f"step:{step}", role=f"input:{n}")
            for n, each in enumerate(taken)
        ]
        if cached:
            records.append(Edge(source=f"step:{cached}", target=f"step:{step}", role="cached"))
        if draw(st.booleans()):
            versions += 1
            records += _registered(run, step, versions)
        ended.append(step)
        artifacts.append(gives)
        records.append(_artifact(gives))
        counts[run] += 1
    return records


def _artifact(digest: Digest) -> Artifact:
    return Artifact(
        digest=digest, kind="table", format="ipc", blob=digest, size_bytes=1, created=1.0
    )


def _registered(run: str, step: str, number: int) -> list[Record]:
    package = digest_bytes(b"%d" % number)
    return [
        ModelVersion(
            name="m",
            number=number,
            package=package,
            content=package,
            run=run,
            step_run=step,
            task="binary",
            runtime="onnx",
            size_bytes=1,
            created=1.0,
        ),
        Edge(source=f"step:{step}", target=f"model:m@{number}", role="registered"),
        Alias(name="m", alias="champion", number=number, moved=1.0),
        Revision(
            endpoint="e",
            number=number,
            spec={},
            models={"model": f"m@{number}"},
            packages={f"m@{number}": package},
            created=1.0,
        ),
        LiveRevision(endpoint="e", number=number, moved=1.0),
        Edge(source=f"model:m@{number}", target=f"revision:e#{number}", role="serves"),
    ]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store to copy: making one takes longer than all else."""
    root = tmp_path_factory.mktemp("empty") / ".clewline"
    Store.create(root).close()
    return root


@settings(max_examples=50)
@given(records=histories())
def test_lineage_has_no_cycle(
    tmp_path_factory: pytest.TempPathFactory, empty: Path, records: list[Record]
) -> None:
    """Whatever runs did, side by side and from the cache, everything rests on earlier things."""
    root = shutil.copytree(empty, tmp_path_factory.mktemp("store") / ".clewline")
    with Store.open(root) as store:
        store.record(*records)
        assert _is_acyclic(store.catalog.find(Edge, limit=None))
        for step in store.catalog.find(StepRun, limit=None):
            for full in (False, True):
                assert back(store, step.id, full=full).ref == step.id
                assert forward(store, step.id, full=full).ref == step.id
                assert forward(store, step.outputs[0], full=full).ref == step.outputs[0]


def _is_acyclic(edges: Iterable[Edge]) -> bool:
    """Take away what rests on nothing, until nothing is left or nothing can be taken."""
    left = {(edge.source, edge.target) for edge in edges}
    while left:
        targets = {target for _, target in left}
        kept = {(source, target) for source, target in left if source in targets}
        if kept == left:
            return False
        left = kept
    return True


@pytest.mark.parametrize(
    ("source", "target", "role"),
    [
        ("step:aaaaaaaaaaaa/01-b", "step:aaaaaaaaaaaa/00-a", "input:x"),
        ("step:aaaaaaaaaaaa/01-b", "step:aaaaaaaaaaaa/01-b", "cached"),
        ("model:m@1", "step:aaaaaaaaaaaa/00-a", "input:x"),
        ("revision:e#1", "model:m@1", "serves"),
        ("step:aaaaaaaaaaaa/00-a", "input:" + "0" * 64, "output"),
        ("step:bbbbbbbbbbbb/00-a", "step:aaaaaaaaaaaa/00-a", "input:x"),
        ("thing:1", "model:m@1", "registered"),
    ],
)
def test_an_edge_that_leads_back_is_our_mistake(
    store: Store, source: str, target: str, role: str
) -> None:
    with pytest.raises(ValueError, match="leads back"):
        store.record(Edge(source=source, target=target, role=role))
    assert store.catalog.count(Edge) == 0


def test_artifacts_are_no_part_of_the_graph(line: Line) -> None:
    """A step that gives back what it took would otherwise rest on itself."""
    line.store.record(line.step("04-same", {"table": line.table}, line.table))
    assert back(line.store, line.table.digest, full=True).ref == line.table.digest
    assert isinstance(line.table, Artifact)


def test_a_revision_tells_what_was_accepted_and_a_run_why_it_failed() -> None:
    accepted = {"fields": {"age": {"bounds": [17, 90]}, "sex": {"levels": ["f", "m"]}}}
    revision = Revision(
        endpoint="e", number=1, spec={}, models={}, packages={}, created=1.0, accepted=accepted
    )
    node = LineageNode(kind="revision", ref=revision.ref, record=revision)
    assert facts(node)["accepted"] == "age 17 to 90, sex 2 levels"
    error = {"type": "ValueError", "message": "bad\nrow", "frames": []}
    run = Run(id="a" * 12, pipeline="p", status="failed", started=1.0, error=error)
    node = LineageNode(kind="run", ref=run.id, record=run, facts={"steps": 0, "cached_steps": 0})
    assert facts(node)["error"] == "ValueError: bad"
