"""A dry run of a resolved graph: every node and every arm, row by row and all rows together."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import msgspec

from clewline.errors import ClewlineError
from clewline.flow.keys.file_access import watch_reads
from clewline.serve.conformal_sets import KEY as CONFORMAL
from clewline.serve.explain_rules import check_conditions
from clewline.serve.graph.builder import isolation_of
from clewline.serve.graph.functions import ProjectFunctions, functions_of
from clewline.serve.graph.node_kind import fit_graph
from clewline.serve.graph.problems import InvalidEndpoint, Problems
from clewline.serve.graph.row_trace import RowTrace
from clewline.serve.graph.tree import Tree, children, of_revision, walk
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.revision import RevisionDraft
from clewline.store.ids import prediction_ids
from clewline.store.records import Revision

MOST_ALONE = 50
"""Rows that are answered one by one."""
MOST_S = 1.0
"""Seconds that one part of a graph may take for them; two rows are always answered."""


class NodeTime(msgspec.Struct, frozen=True, kw_only=True):
    """How long a node took."""

    node: str
    row_ms: float  # one row alone, median
    many_row_ms: float  # a row among many


class GraphTrial(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a dry run on the background rows."""

    rows: int
    refused_rows: int  # by bounds that a person has accepted
    flagged_rows: int
    row_ms: float  # one row alone through the whole graph, median
    many_row_ms: float  # a row among all rows
    nodes: list[NodeTime]  # in the order in which they are passed


def try_graph(pool: SharedModels, draft: RevisionDraft, source: str) -> GraphTrial:
    """
    Answer the background rows with the whole graph, and with every arm, branch and shadow.

    Args:
        pool: Source of the models; shared over many drafts, it loads each once.
        draft: The draft to try.
        source: The file, for the errors.

    Raises:
        InvalidEndpoint: Nodes do not fit together, raise, or answer a row differently alone
            and in a batch; names all mistakes that were found.
        ClewlineError: A model cannot be loaded.
    """
    if draft.code is None:
        return _Trial(pool, draft.revision, None).run(source)
    problems = Problems()
    with closing(functions_of(draft.code)) as functions, watch_reads(pool.project.root) as reads:
        trial = _Trial(pool, draft.revision, functions).run(source)
    for path in reads.paths():
        if path.startswith(reads.root + os.sep):  # outside the project libraries read a lot
            problems.add("reads_file", "graph", file=reads.relative_path(path))
    problems.require_none(source)
    return trial


class _Trial:
    """The parts of one graph, each tried alone, the innermost first."""

    def __init__(
        self, pool: SharedModels, revision: Revision, functions: ProjectFunctions | None
    ) -> None:
        self._pool, self._revision, self._functions = pool, revision, functions
        self._problems = Problems()
        self._failed: set[str] = set()  # nodes that cannot answer rightly
        # node → milliseconds a row: alone, and among many
        self._times: dict[str, tuple[list[float], list[float]]] = {}

    def run(self, source: str) -> GraphTrial:
        """Check how the nodes fit together, then run every part."""
        revision, pool = self._revision, self._pool
        pool.pin(revision.packages)
        with ExitStack() as stack:
            isolated = {
                node["model"]: isolation_of(node.get("isolate"), revision)
                for node in walk(of_revision(revision))
                if "model" in node
            }
            models = [
                pool.take(model, isolated.get(model))
                for model in dict.fromkeys(revision.models.values())
            ]
            for model in models:
                stack.callback(model.release)
            if revision.graph:
                signatures = {model.ref: model.signature for model in models}
                fit_graph(revision.graph, signatures, self._problems)
                self._problems.require_none(source)
                spec = {key: revision.spec[key] for key in revision.spec if key != CONFORMAL}
                for tree in _parts(revision.graph):
                    name = tree["name"]
                    if any(child["name"] in self._failed for _, child in children(tree)):
                        self._failed.add(name)
                        continue
                    part = msgspec.structs.replace(revision, graph=tree, accepted={}, spec=spec)
                    self._try(part, name, f"The node {name}")
                self._problems.require_none(source)
            trial = self._try(revision, of_revision(revision)["name"], revision.endpoint)
            self._problems.require_none(source)
            assert trial is not None, "a part that fails adds a problem"
            return trial

    def _try(self, revision: Revision, node: str, part: str) -> GraphTrial | None:
        """Run a part; if it fails, add that to the problems."""
        try:
            loaded = LoadedRevision.load(
                revision, self._pool, functions=self._functions, trial=False
            )
            with closing(loaded):
                if revision is self._revision:
                    check_conditions(revision, loaded.signature, self._problems)
                return self._answer(loaded, node, part)
        except InvalidEndpoint:
            raise
        except ClewlineError as error:
            self._failed.add(node)
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            if isinstance(cause, ClewlineError):
                self._problems.add_error(part, error)
            else:
                self._problems.add_raised(part, node, self._revision.endpoint, cause)
            return None

    def _answer(self, loaded: LoadedRevision, node: str, part: str) -> GraphTrial:
        rows, refused = loaded.background()
        ids = prediction_ids(len(rows))
        entities: list[str | None] = [f"trial-{i}" for i in range(len(rows))]

        def timed(some: slice) -> tuple[list[bytes], float]:
            start = time.perf_counter()
            answer = loaded.answer(rows[some], entities[some], ids[some])
            spent_ms = (time.perf_counter() - start) * 1000
            self._note(answer.traces, is_alone=some != everything)
            return answer.answers, spent_ms

        everything = slice(None)
        together: list[bytes] = []
        spent_ms = 0.0
        if rows:  # a model may have been imported without background rows
            loaded.answer(rows[:1], entities[:1], ids[:1])  # the first call is no measure
            together, spent_ms = timed(everything)
        alone: list[float] = []
        until = time.perf_counter() + MOST_S
        for i in range(min(len(rows), MOST_ALONE)):
            (answer,), took_ms = timed(slice(i, i + 1))
            alone.append(took_ms)
            if answer != together[i]:
                self._failed.add(node)
                shown = {"alone": _shown(answer), "together": _shown(together[i])}
                self._problems.add("depends_on_batch", part, part=part, row=i, **shown)
                break
            if time.perf_counter() > until and i:
                break
        names = (each["name"] for each in walk(of_revision(self._revision)))
        times = [(name, *self._times[name]) for name in names if name in self._times]
        return GraphTrial(
            rows=len(rows),
            refused_rows=refused,
            flagged_rows=len({row for row, _ in loaded.checker.columns(rows).flags}),
            row_ms=_median(alone),
            many_row_ms=round(spent_ms / max(len(rows), 1), 4),
            nodes=[
                NodeTime(node=name, row_ms=_median(one), many_row_ms=_median(many))
                for name, one, many in times
            ],
        )

    def _note(self, traces: list[RowTrace], *, is_alone: bool) -> None:
        """Note how long each node took for a row; for paths that share it, it ran once."""
        paths = {id(trace.path): trace.path for trace in traces}
        rows = Counter(id(trace.path) for trace in traces)
        passed: Counter[str] = Counter()
        took_us: dict[str, float] = {}
        for key, path in paths.items():
            for node, spent_us in path.path:
                passed[node] += rows[key]
                took_us[node] = spent_us
        for node, spent_us in took_us.items():
            alone, many = self._times.setdefault(node, ([], []))
            (alone if is_alone else many).append(spent_us / 1000 / passed[node])


def _parts(tree: Tree) -> Iterator[Tree]:
    """Yield every node but the outermost, the innermost first."""
    for _, child in children(tree):
        yield from _parts(child)
        yield child


def _shown(answer: bytes) -> str:
    """Write an answer without its id."""
    values: dict[str, Any] = msgspec.json.decode(answer)
    return msgspec.json.encode({key: values[key] for key in values if key != "id"}).decode()


def _median(times: list[float]) -> float:
    return round(statistics.median_high(times), 4) if times else 0.0
