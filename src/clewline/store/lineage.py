"""
The lineage: `why` goes back to what made a thing, `impact` goes forward to what came of it.

A lineage is a tree of nodes that hold records and values; `clewline.serve.lineage_text` writes them
for people. By default a step is not shown for its own sake: a version leads to its run, the run
to its code and its data. `full=True` shows every step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

from clewline.errors import NotFound
from clewline.store.edges import (
    INPUT,
    MODEL,
    REVISION,
    STEP,
    connected_steps,
    sources,
    steps_that_made,
    steps_that_took,
    targets,
)
from clewline.store.reader import CatalogReader
from clewline.store.records import (
    Alias,
    Artifact,
    ArtifactUse,
    ExplanationRecord,
    LiveRevision,
    ModelVersion,
    Revision,
    Run,
    StepRun,
)
from clewline.store.ref import RecordRef, find_revision, find_version
from clewline.store.rows import R

NodeKind = Literal[
    "explanation", "prediction", "revision", "model", "run", "step", "code", "data", "artifact"
]
"""A `data` node is an artifact that began a lineage: a file, a folder, or made without inputs."""

RUNS_SHOWN = 20
_IN = "IN (SELECT value FROM json_each(?))"
_DATA_KINDS = ("file", "tree", "table", "array")


class LineageNode(msgspec.Struct, kw_only=True, omit_defaults=True):
    """
    One thing of a lineage, and what it leads to.

    `facts` holds what the record does not say. Of an explanation: `missing`, why its prediction
    cannot be read. Of a prediction: `explanations`. Of a revision: `live` (the revision that
    answers now) and `live_since`. Of a model: `aliases`, and `train` and `test` as digest and
    rows. Of revision and model, forward: `explanations` (how many). Of a run: `steps`,
    `cached_steps` and `same_metrics` (as its version). Of a step: `repeated`, where it stands
    elsewhere with its children. Of code: `snapshot`, `commit`, `changed` (files that differ from
    the commit), `functions`, `runs` and `first_run`. Of data and artifacts: `paths` from which
    runs read it, `made_by`, `taken_by` (how many steps) and `read` (how a path led to it).
    """

    kind: NodeKind
    ref: str  # `why` and `impact` take it to go on from here
    record: Any = None  # of the catalog, or a prediction
    facts: dict[str, Any] = {}
    children: list[LineageNode] = []
    omitted: int = 0  # runs that stand among the children only with `full`


def why(reader: CatalogReader, ref: RecordRef, *, full: bool = False) -> LineageNode:
    """
    Follow the lineage back.

    Args:
        reader: The catalog.
        ref: Where to begin, from `resolve`.
        full: Show every step run, not only runs, code and data.

    Returns:
        The thing itself; its children are what it was made of.

    Raises:
        NotFound: There is no such record.
    """
    return _Back(reader, full).node(ref)


def impact(
    reader: CatalogReader, ref: RecordRef, *, full: bool = False, runs_shown: int = RUNS_SHOWN
) -> LineageNode:
    """
    Follow the lineage forward.

    Args:
        reader: The catalog.
        ref: Where to begin, from `resolve`.
        full: Show every step run, and every run.
        runs_shown: How many runs stand beneath a thing at most, without `full`.

    Returns:
        The thing itself; its children are what was made of it.

    Raises:
        NotFound: There is no such record.
    """
    return _Forward(reader, full, runs_shown).node(ref)


class _Nodes:
    """Makes the nodes of records; the two ways along the lineage build on it."""

    def __init__(self, reader: CatalogReader, full: bool, runs_shown: int = RUNS_SHOWN) -> None:
        self.reader, self.full, self.runs_shown = reader, full, runs_shown
        self._drawn: set[str] = set()  # step runs that stand in the tree with their children

    def node(self, ref: RecordRef) -> LineageNode:
        follow: Callable[[str], LineageNode] = getattr(self, ref.kind)
        node = follow(ref.id)
        if ref.read is not None:
            node.facts["read"] = ref.read
        return node

    def record(self, kind: type[R], key: str | None) -> R:
        record = self.reader.get(kind, key)
        if record is None:
            raise NotFound(
                f"The catalog has no {kind.__name__} {key}, to which the lineage leads.",
                "`clewline doctor` checks the store.",
            )
        return record

    def revision_node(self, revision: Revision) -> LineageNode:
        live = self.reader.get(LiveRevision, revision.endpoint)
        facts = {"live": live.ref, "live_since": live.moved} if live else {}
        return LineageNode(kind="revision", ref=revision.ref, record=revision, facts=facts)

    def model_node(self, version: ModelVersion) -> LineageNode:
        aliases = self.reader.find(Alias, name=version.name, number=version.number, limit=None)
        facts = {"aliases": [alias.alias for alias in aliases]}
        return LineageNode(kind="model", ref=version.ref, record=version, facts=facts)

    def run_node(self, run: Run) -> LineageNode:
        cached = self.reader.count(StepRun, run=run.id, status="cached")
        facts = {"steps": self.reader.count(StepRun, run=run.id), "cached_steps": cached}
        return LineageNode(kind="run", ref=run.id, record=run, facts=facts)

    def explanation(self, explanation: str) -> LineageNode:
        """Its prediction stands in the log, which `serve.prediction_lineage` reads."""
        record = self.record(ExplanationRecord, explanation)
        return LineageNode(kind="explanation", ref=record.id, record=record)

    def count_explanations(self, node: LineageNode, **of: Any) -> LineageNode:
        if count := self.reader.count(ExplanationRecord, **of):
            node.facts["explanations"] = count
        return node

    def step_node(self, step: str) -> LineageNode:
        return LineageNode(kind="step", ref=step, record=self.record(StepRun, step))

    def artifact_node(self, digest: str) -> LineageNode:
        seen = self.reader.rows(
            "SELECT DISTINCT path FROM seen_file WHERE digest = ? ORDER BY path", (digest,)
        )
        node = LineageNode(
            kind="data" if seen else "artifact",
            ref=digest,
            record=self.reader.get(Artifact, digest),
        )
        if seen:
            node.facts["paths"] = [path for (path,) in seen]
        elif (maker := self.maker_of(digest)) is not None:
            node.facts["made_by"] = maker
        return node

    def maker_of(self, digest: str) -> str | None:
        """Return the step run that made an artifact first, or None if it came from outside."""
        made = (self.reader.get(StepRun, step) for step in steps_that_made(self.reader, digest))
        steps = [step for step in made if step is not None]
        first = min(steps, key=lambda step: (step.status == "cached", step.started), default=None)
        return first.id if first is not None else None

    def code_node(self, digest: str) -> LineageNode:
        runs = self.reader.find(Run, snapshot=digest, order="started", limit=1)
        if runs:
            node = run_code(runs[0])
            node.facts["runs"] = self.reader.count(Run, snapshot=digest)
            node.facts["first_run"] = runs[0].started
            return node
        for revision in self.revisions_with(digest):
            return revision_code(revision)
        raise NotFound(f"No run and no revision has the code snapshot {digest}.")

    def revisions_with(self, code: str) -> list[Revision]:
        """List the revisions whose functions are in a state of the code, the first one first."""
        found = [
            find_revision(self.reader, name.removeprefix(REVISION))
            for name in targets(self.reader, f"code:{code}")
            if name.startswith(REVISION)
        ]
        return sorted(found, key=lambda revision: revision.created)

    def steps_of(self, run: str) -> list[str]:
        steps = self.reader.find(StepRun, run=run, order="index", limit=None)
        return [step.id for step in steps]

    def step_tree(
        self,
        first: str,
        neighbours: Callable[[CatalogReader, str], list[str]],
        model: Callable[[str], LineageNode] | None = None,
    ) -> LineageNode:
        """Draw a step run and the steps that it leads to, each once; as deep as a run is long."""
        root = self.step_node(first)
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if node.ref in self._drawn:
                node.facts["repeated"] = True
                continue
            self._drawn.add(node.ref)
            for name in dict.fromkeys(neighbours(self.reader, f"{STEP}{node.ref}")):
                if name.startswith(STEP):
                    waiting.append(self.step_node(name.removeprefix(STEP)))
                    node.children.append(waiting[-1])
                elif name.startswith(INPUT):
                    node.children.append(self.artifact_node(name.removeprefix(INPUT)))
                elif name.startswith(MODEL) and model is not None:
                    node.children.append(model(name.removeprefix(MODEL)))
        return root


class _Back(_Nodes):
    """Goes back; one method for each kind of `RecordRef`."""

    def revision(self, ref: str) -> LineageNode:
        revision = find_revision(self.reader, ref)
        node = self.revision_node(revision)
        if revision.code is not None:
            node.children.append(revision_code(revision))
        node.children += [self.model(name) for name in dict.fromkeys(revision.models.values())]
        return node

    def model(self, ref: str) -> LineageNode:
        version = find_version(self.reader, ref)
        node = self.model_node(version)
        before = sources(self.reader, f"{MODEL}{ref}")
        registering = (name.removeprefix(STEP) for name in before if name.startswith(STEP))
        step = version.step_run or next(registering, None)
        if step is None:
            node.children = [self.run(version.run)] if version.run is not None else []
            return node
        run = self.run_with_code(version.run)
        run.facts["same_metrics"] = run.record.metrics == version.metrics
        node.children = [run]
        if self.full:
            node.children.append(self.step(step))
            return node
        run.children += self.data_behind([step])
        for name in ("train", "test"):
            role = f"{INPUT}{name}"
            for use in self.reader.find(ArtifactUse, step_run=step, role=role, limit=1):
                table = self.reader.get(Artifact, use.artifact)
                if table is not None and table.rows is not None:
                    node.facts[name] = {"digest": table.digest, "rows": table.rows}
        return node

    def run(self, run: str) -> LineageNode:
        node = self.run_with_code(run)
        steps = self.steps_of(run)
        if not self.full:
            node.children += self.data_behind(steps)
            return node
        for step in steps:  # those on which no other of the run rests
            after = targets(self.reader, f"{STEP}{step}")
            if not any(name.startswith(f"{STEP}{run}/") for name in after):
                node.children.append(self.step(step))
        return node

    def run_with_code(self, run: str | None) -> LineageNode:
        record = self.record(Run, run)
        node = self.run_node(record)
        node.children = [run_code(record)]
        return node

    def data_behind(self, steps: Iterable[str]) -> list[LineageNode]:
        """List the data that step runs began with: content inputs, or what first steps made."""
        nodes: dict[str, LineageNode] = {}
        for step in sorted(connected_steps(self.reader, list(steps), "back")):
            before = sources(self.reader, f"{STEP}{step}")
            record = self.reader.get(StepRun, step)
            outputs = [self.reader.get(Artifact, each) for each in record.outputs] if record else []
            made = [artifact for artifact in outputs if artifact is not None]
            table = next((each for each in made if each.rows is not None), None)
            for digest in (name.removeprefix(INPUT) for name in before if name.startswith(INPUT)):
                artifact = self.reader.get(Artifact, digest)
                # A file, folder or table, not a value that was passed as it is.
                if digest in nodes or (artifact and artifact.kind not in _DATA_KINDS):
                    continue
                nodes[digest] = self.artifact_node(digest)
                if table is not None:  # how the step read it
                    nodes[digest].facts |= {"rows": table.rows, "columns": table.columns}
            for artifact in made if not before else ():
                if artifact.kind in _DATA_KINDS:
                    nodes[artifact.digest] = LineageNode(
                        kind="data", ref=artifact.digest, record=artifact, facts={"made_by": step}
                    )
        return list(nodes.values())

    def step(self, step: str) -> LineageNode:
        if self.full:
            return self.step_tree(step, sources)
        node = self.step_node(step)
        run = self.run_with_code(node.record.run)
        run.children += self.data_behind([step])
        node.children = [run]
        return node

    def code(self, digest: str) -> LineageNode:
        return self.code_node(digest)

    def artifact(self, digest: str) -> LineageNode:
        node = self.artifact_node(digest)
        if (maker := self.maker_of(digest)) is not None:
            node.facts["made_by"] = maker
            step = self.step(maker)
            node.children = [step] if self.full else step.children
        return node


class _Forward(_Nodes):
    """Goes forward; one method for each kind of `RecordRef`."""

    def revision(self, ref: str) -> LineageNode:
        # Its answers are rows of the log, too many to be nodes.
        node = self.revision_node(find_revision(self.reader, ref))
        return self.count_explanations(node, revision=node.ref)

    def model(self, ref: str) -> LineageNode:
        node = self.model_node(find_version(self.reader, ref))
        self.count_explanations(node, model=node.ref)
        for name in targets(self.reader, f"{MODEL}{ref}"):
            if name.startswith(REVISION):
                node.children.append(self.revision(name.removeprefix(REVISION)))
        return node

    def run(self, run: str) -> LineageNode:
        node = self.run_node(self.record(Run, run))
        self.add_made_from(node, self.steps_of(run))
        return node

    def step(self, step: str) -> LineageNode:
        if self.full:
            return self.step_tree(step, targets, self.model)
        node = self.step_node(step)
        self.add_made_from(node, [step])
        return node

    def code(self, digest: str) -> LineageNode:
        node = self.code_node(digest)
        node.children = [self.revision(each.ref) for each in self.revisions_with(digest)]
        runs = self.reader.find(Run, snapshot=digest, order="-started", limit=None)
        self.add_made_from(node, [step for run in runs for step in self.steps_of(run.id)])
        return node

    def artifact(self, digest: str) -> LineageNode:
        node = self.artifact_node(digest)
        takers = steps_that_took(self.reader, digest)
        node.facts["taken_by"] = len(takers)
        if self.full:
            node.children = [self.step(step) for step in takers]
        else:
            self.add_made_from(node, takers)
        return node

    def add_made_from(self, node: LineageNode, steps: list[str]) -> None:
        """
        Add the runs that rest on step runs, with the versions that they registered.

        Runs that led to a model stand first, then the newest. The versions of a run stand
        beside the other runs where the node is that run.
        """
        after = dict.fromkeys(connected_steps(self.reader, steps, "forward"))
        # Two queries for all runs, because a file may have been read by ten thousand of them.
        of_steps = {step.partition("/")[0] for step in after}
        names = json.dumps(sorted(of_steps))
        runs = self.reader.rows(
            f"SELECT id FROM run WHERE id {_IN} ORDER BY -started, id", (names,)
        )
        versions: dict[str, list[str]] = {}
        for name, number, run, step in self.reader.rows(
            f"SELECT name, number, run, step_run FROM model_version WHERE run {_IN} "
            "ORDER BY name, number",
            (names,),
        ):
            if step is None or step in after:
                versions.setdefault(run, []).append(f"{name}@{number}")
        for run in of_steps - {run for (run,) in runs}:
            self.record(Run, run)  # is not there, and raises
        others = [run for (run,) in runs if run != node.ref]
        others.sort(key=lambda run: run not in versions)
        own = versions.get(node.ref, [])
        shown = len(own) + len(others) if self.full else self.runs_shown
        node.children += [self.model(ref) for ref in own[:shown]]
        for run in others[: max(0, shown - len(own))]:
            node.children.append(self.run_node(self.record(Run, run)))
            node.children[-1].children = [self.model(ref) for ref in versions.get(run, [])]
        node.omitted = max(0, len(own) + len(others) - shown)


def run_code(run: Run) -> LineageNode:
    """Make the node of the code of a run."""
    facts = {"snapshot": run.snapshot, "commit": run.commit, "changed": run.changed}
    return LineageNode(kind="code", ref=run.snapshot or run.id, facts=facts)


def revision_code(revision: Revision) -> LineageNode:
    """Make the node of the code whose functions the graph of a revision calls."""
    functions = list(dict.fromkeys(_functions_in(revision.graph)))
    facts = {"snapshot": revision.code, "functions": functions}
    return LineageNode(kind="code", ref=revision.code or "", facts=facts)


def _functions_in(tree: Any) -> Iterator[str]:
    """Find the functions that a graph names, however deep."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == "function" and isinstance(value, str):
            yield value
        yield from _functions_in(value)
