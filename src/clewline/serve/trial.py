"""A dry run of a resolved graph: every node and every arm, row by row and all rows together."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import msgspec

from clewline.errors import ClewlineError
from clewline.flow.keys.file_access import FileReads, watch_reads
from clewline.serve.graph.fitting import fit
from clewline.serve.graph.functions import ProjectFunctions, functions_of
from clewline.serve.graph.problems import InvalidEndpoint, Problems
from clewline.serve.graph.resolver import RevisionDraft
from clewline.serve.graph.row_trace import RowTrace
from clewline.serve.graph.tree import Tree, below, of_revision, walk
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.model_cache.loaded_models import LoadedModel, SharedModels
from clewline.signature.field import Signature
from clewline.store.ids import prediction_ids
from clewline.store.records import Revision

MOST_ALONE = 50
"""Rows that are answered one by one."""
MOST_S = 1.0
"""Seconds that one part of a graph may take for them; two rows are always answered."""


class NodeTime(msgspec.Struct, frozen=True, kw_only=True):
    """What a node took."""

    node: str
    row_ms: float  # one row by itself, median
    many_row_ms: float  # a row among many


class GraphTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What a dry run on the background rows gave."""

    rows: int
    refused_rows: int  # by what a person has accepted
    flagged_rows: int
    row_ms: float  # one row through the whole graph by itself, median
    many_row_ms: float  # a row among as many as there are
    nodes: list[NodeTime]  # in the order in which they are passed


def try_graph(pool: SharedModels, draft: RevisionDraft, source: str) -> GraphTrial:
    """
    Answer the background rows with the whole graph, and with every arm, branch and shadow.

    Args:
        pool: Where models come from; shared over many drafts, it loads each once.
        draft: What is tried.
        source: The file, for the errors.

    Raises:
        InvalidEndpoint: Nodes do not fit together, raise, or give a row another answer in
            company than alone; names all that were found.
        ClewlineError: A model cannot be loaded.
    """
    if draft.code is None:
        return _with_models(pool, draft.revision, None, source)
    with closing(functions_of(draft.code)) as functions, watch_reads(pool.project.root) as reads:
        trial = _with_models(pool, draft.revision, functions, source)
    _require_no_reads(reads, source)
    return trial


def _with_models(
    pool: SharedModels, revision: Revision, functions: ProjectFunctions | None, source: str
) -> GraphTrial:
    pool.pin(revision.packages)
    with ExitStack() as held:
        models = [pool.take(model) for model in dict.fromkeys(revision.models.values())]
        for model in models:
            held.callback(model.release)
        return _Try(pool, revision, functions, models).run(source)


def _require_no_reads(reads: FileReads, source: str) -> None:
    """Refuse functions that take what they know from files that no revision pins."""
    problems = Problems()
    # Beyond the project, libraries read much that is their own affair.
    inside = (path for path in reads.paths() if path.startswith(reads.root + os.sep))
    for path in inside:
        problems.add(
            "graph",
            f"a function of the graph reads {reads.told(path)}, which the revision does not pin.",
            "Put what it needs into config:, or register a Python model, which keeps its files.",
        )
    problems.require_none(source)


class _Try:
    """The parts of one graph, each tried by itself, the innermost first."""

    def __init__(
        self,
        pool: SharedModels,
        revision: Revision,
        functions: ProjectFunctions | None,
        models: list[LoadedModel],
    ) -> None:
        self.problems = Problems()
        self.times: dict[
            str, tuple[list[float], list[float]]
        ] = {}  # node → [alone], [among many], in ms a row
        self._pool, self._revision, self._functions = pool, revision, functions
        self._signatures: dict[str, Signature] = {model.ref: model.signature for model in models}
        self._odd: set[str] = set()  # nodes that gave another answer in company

    def run(self, source: str) -> GraphTrial:
        """Hold the parts against each other, then run them."""
        tree = self._revision.graph
        if tree:
            fit(tree, self._signatures, self.problems)
            self.problems.require_none(source)
            for part, name in _parts(tree):
                self._part(part, name)
            self.problems.require_none(source)
        return self._whole(source)

    def _part(self, tree: Tree, name: str) -> None:
        """Run what stands below a node, unless a part of it has failed already."""
        if any(child["name"] in self._odd for _, child in below(tree)):
            self._odd.add(tree["name"])
            return
        part = msgspec.structs.replace(self._revision, graph=tree, accepted={})
        try:
            self._measured(part, name, tree["name"])
        except InvalidEndpoint:
            raise
        except ClewlineError as error:
            self._odd.add(tree["name"])
            self.problems.add(name, f"{name}: {error.message}", error.fix or "")

    def _whole(self, source: str) -> GraphTrial:
        name = self._revision.endpoint
        trial = self._measured(self._revision, name, "")
        self.problems.require_none(source)
        return trial

    def _measured(self, revision: Revision, name: str, node: str) -> GraphTrial:
        loaded = LoadedRevision.load(revision, self._pool, functions=self._functions, trial=False)
        try:
            return self._answered(loaded, name, node)
        finally:
            loaded.close()

    def _answered(self, loaded: LoadedRevision, name: str, node: str) -> GraphTrial:
        rows, refused = loaded.background()
        ids = prediction_ids(len(rows))
        entities = [f"trial-{i}" for i in range(len(rows))]
        checked = loaded.checker.columns(rows)
        together, spent = self._together(loaded, rows, entities, ids)
        alone: list[float] = []
        until = time.perf_counter() + MOST_S
        for i, row in enumerate(rows[:MOST_ALONE]):
            answer, took = self._timed(loaded, [row], [entities[i]], [ids[i]], 0)
            alone.append(took)
            if answer[0] != together[i]:
                self._differs(name, node, i, answer[0], together[i])
                break
            if time.perf_counter() > until and i:
                break
        return GraphTrial(
            rows=len(rows),
            refused_rows=refused,
            flagged_rows=len({row for row, _ in checked.flags}),
            row_ms=_median(alone),
            many_row_ms=round(spent / max(len(rows), 1), 4),
            nodes=self._node_times(),
        )

    def _together(
        self, loaded: LoadedRevision, rows: list[Any], entities: list[str], ids: list[bytes]
    ) -> tuple[list[bytes], float]:
        if not rows:
            return [], 0.0  # a model that was brought without background rows
        loaded.answer(rows[:1], [entities[0]], ids[:1])  # the first call is no measure
        return self._timed(loaded, rows, entities, ids, 1)

    def _node_times(self) -> list[NodeTime]:
        """What each node took, from the top of the graph."""
        order = [node["name"] for node in walk(of_revision(self._revision))]
        return [
            NodeTime(node=name, row_ms=_median(alone), many_row_ms=_median(many))
            for name in order
            if name in self.times
            for alone, many in (self.times[name],)
        ]

    def _timed(
        self,
        loaded: LoadedRevision,
        rows: list[Any],
        entities: Sequence[str | None],
        ids: list[bytes],
        among: int,
    ) -> tuple[list[bytes], float]:
        start = time.perf_counter()
        predictions = loaded.answer(rows, list(entities), ids)
        spent = (time.perf_counter() - start) * 1000
        self._note(predictions.trails, among)
        return predictions.answers, spent

    def _note(self, trails: list[RowTrace], among: int) -> None:
        """Enter what each node took a row; one that several ways share ran once for all of them."""
        ways = {id(trail.way): trail.way for trail in trails}
        rows = Counter(id(trail.way) for trail in trails)
        passed: Counter[str] = Counter()
        took: dict[str, float] = {}
        for key, way in ways.items():
            for node, spent_us in way.path:
                passed[node] += rows[key]
                took[node] = spent_us / 1000
        for node, spent_ms in took.items():
            self.times.setdefault(node, ([], []))[among].append(spent_ms / passed[node])

    def _differs(self, name: str, node: str, row: int, alone: bytes, together: bytes) -> None:
        self._odd.add(node)
        self.problems.add(
            name,
            f"{name} gives a row another answer in company than alone: background row {row} "
            f"is {_shown(alone)} alone and {_shown(together)} among others.",
            "An answer may depend on its own row only: keep no state, and take no mean over rows.",
        )


def _parts(tree: Tree) -> Iterator[tuple[Tree, str]]:
    """Every node but the outermost, the innermost first, each with what it is called."""
    for _, child in below(tree):
        yield from _parts(child)
        yield child, f"the node {child['name']}"


def _shown(answer: bytes) -> str:
    """An answer without its id."""
    said: dict[str, Any] = msgspec.json.decode(answer)
    return msgspec.json.encode({key: said[key] for key in said if key != "id"}).decode()


def _median(times: list[float]) -> float:
    ordered = sorted(times)
    return round(ordered[len(ordered) // 2], 4) if ordered else 0.0
