"""
The lineage: `why` goes back to what made a thing, `impact` goes forward to what came of it.

A lineage is a tree of nodes that hold values; `clewline.cli.lineage_text` writes them for people.
By default a step is not shown for its own sake: a version leads to its run, the run to its code
and its data. `full=True` shows every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from clewline.errors import NotFound
from clewline.store.digest import Digest
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
    LiveRevision,
    ModelVersion,
    Revision,
    Run,
    SeenFile,
    StepRun,
)
from clewline.store.ref import ReadPath, RecordRef, RefKind, find_revision, find_version
from clewline.store.rows import R

RUNS_SHOWN = 20
_DATA_KINDS = ("file", "tree", "table", "array")


class LineageNode(msgspec.Struct, kw_only=True, tag_field="kind", omit_defaults=True):
    """One thing of a lineage, and what it leads to. Times are seconds since the epoch."""

    ref: str  # `why` and `impact` take it to go on from here
    children: list[LineageNode] = []
    omitted: int = 0  # runs that stand among the children only with `full`

    @property
    def kind(self) -> str:
        """Return the kind of thing: revision, model, run, step, code, data or artifact."""
        return str(self.__struct_config__.tag)


class RevisionNode(LineageNode, tag="revision", kw_only=True):
    """A revision of an endpoint."""

    created: float
    live: str | None  # the revision that answers now
    live_since: float | None
    graph: dict[str, Any] = {}
    accepted: dict[str, Any] = {}  # field → bounds and levels that a person has accepted


class ModelNode(LineageNode, tag="model", kw_only=True):
    """A model version: how it is served, how good it is, which aliases it has."""

    created: float
    aliases: list[str]
    runtime: str
    equality: dict[str, Any]
    metrics: dict[str, float]
    tables: dict[str, TableFacts] = {}  # train, test


class TableFacts(msgspec.Struct, frozen=True):
    """A table that a version was trained or tested on."""

    digest: Digest
    rows: int


class RunNode(LineageNode, tag="run", kw_only=True):
    """A run."""

    pipeline: str
    status: str
    params: dict[str, Any] = {}
    seed: int | None = None
    metrics: dict[str, float] = {}  # empty where they stand on its version already
    steps: int
    cached_steps: int
    started: float
    ended: float | None = None
    error: dict[str, Any] | None = None
    replay_of: str | None = None


class StepNode(LineageNode, tag="step", kw_only=True):
    """A step run."""

    status: str
    params: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    cached_from: str | None = None
    wall_s: float | None = None
    repeated: bool = False  # it stands elsewhere in the tree, with its children


class CodeNode(LineageNode, tag="code", kw_only=True):
    """A state of the project's code."""

    snapshot: Digest | None = None
    commit: str | None = None
    changed: list[str] = []  # files that differ from the commit
    functions: list[str] = []  # that the graph of a revision calls
    runs: int | None = None  # how many runs used it, where it was asked about
    first_run: float | None = None


class ArtifactNode(LineageNode, tag="artifact", kw_only=True):
    """An artifact."""

    digest: Digest
    artifact_kind: str | None = None  # None: the catalog has no record of it
    size_bytes: int | None = None
    rows: int | None = None
    columns: int | None = None
    paths: list[str] = []  # from which runs read it
    made_by: str | None = None  # the step run that made it first
    taken_by: int | None = None  # how many step runs took it, in `impact`
    read: ReadPath | None = None  # how a path led here


class DataNode(ArtifactNode, tag="data", kw_only=True):
    """An artifact with which a lineage begins: a file or folder, or what a first step made."""


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


def impact(reader: CatalogReader, ref: RecordRef, *, full: bool = False) -> LineageNode:
    """
    Follow the lineage forward.

    Args:
        reader: The catalog.
        ref: Where to begin, from `resolve`.
        full: Show every step run, and every run.

    Returns:
        The thing itself; its children are what was made of it.

    Raises:
        NotFound: There is no such record.
    """
    return _Forward(reader, full).node(ref)


class _Walk:
    """Goes along the lineage; a subclass for each way."""

    def __init__(self, reader: CatalogReader, full: bool) -> None:
        self.reader, self.full = reader, full
        self._drawn: set[str] = set()  # step runs that stand in the tree with their children

    def node(self, ref: RecordRef) -> LineageNode:
        follow: dict[RefKind, Callable[[str], LineageNode]] = {
            "revision": self.revision,
            "model": self.model,
            "run": self.run,
            "step": self.step,
            "code": self.code,
            "artifact": self.artifact,
        }
        node = follow[ref.kind](ref.id)
        if isinstance(node, ArtifactNode):
            node.read = ref.read
        return node

    def revision(self, ref: str) -> LineageNode:
        raise NotImplementedError

    def model(self, ref: str) -> LineageNode:
        raise NotImplementedError

    def run(self, run: str) -> LineageNode:
        raise NotImplementedError

    def step(self, step: str) -> LineageNode:
        raise NotImplementedError

    def code(self, digest: str) -> LineageNode:
        raise NotImplementedError

    def artifact(self, digest: str) -> LineageNode:
        raise NotImplementedError

    def step_tree(
        self,
        first: str,
        neighbours: Callable[[CatalogReader, str], list[str]],
        model: Callable[[str], LineageNode] | None = None,
    ) -> StepNode:
        """Draw a step run and the steps that it leads to, each once; as deep as a run is long."""
        root = step_node(_require(self.reader, StepRun, first))
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if node.ref in self._drawn:
                node.repeated = True
                continue
            self._drawn.add(node.ref)
            for name in dict.fromkeys(neighbours(self.reader, f"{STEP}{node.ref}")):
                if name.startswith(STEP):
                    step = _require(self.reader, StepRun, name.removeprefix(STEP))
                    waiting.append(step_node(step))
                    node.children.append(waiting[-1])
                elif name.startswith(INPUT):
                    digest = name.removeprefix(INPUT)
                    node.children.append(artifact_node(self.reader, digest))
                elif name.startswith(MODEL) and model is not None:
                    node.children.append(model(name.removeprefix(MODEL)))
        return root

    def steps_of(self, run: str) -> list[str]:
        steps = self.reader.find(StepRun, run=run, order="index", limit=None)
        return [step.id for step in steps]


class _Back(_Walk):
    def revision(self, ref: str) -> LineageNode:
        revision = find_revision(self.reader, ref)
        node = revision_node(self.reader, revision)
        node.children = [self.model(name) for name in dict.fromkeys(revision.models.values())]
        if revision.code is not None:
            node.children.insert(0, _revision_code(revision))
        return node

    def model(self, ref: str) -> LineageNode:
        version = find_version(self.reader, ref)
        node = model_node(self.reader, version)
        before = sources(self.reader, f"{MODEL}{ref}")
        registering = (each.removeprefix(STEP) for each in before if each.startswith(STEP))
        step = version.step_run or next(registering, None)
        if step is not None and self.full:
            node.children = [self.run_with_code(version.run, version), self.step(step)]
        elif step is not None:
            node.tables = self.tables(step)
            node.children = [self.run_with_data(version.run, [step], version)]
        elif version.run is not None:
            node.children = [self.run(version.run)]
        return node

    def tables(self, step: str) -> dict[str, TableFacts]:
        """Find the tables that a registering step took."""
        found = {}
        for name in ("train", "test"):
            role = f"{INPUT}{name}"
            for use in self.reader.find(ArtifactUse, step_run=step, role=role, limit=1):
                artifact = self.reader.get(Artifact, use.artifact)
                if artifact is not None and artifact.rows is not None:
                    found[name] = TableFacts(artifact.digest, artifact.rows)
        return found

    def run(self, run: str) -> LineageNode:
        if not self.full:
            return self.run_with_data(run, self.steps_of(run))
        node = self.run_with_code(run)
        for step in self.steps_of(run):
            after = targets(self.reader, f"{STEP}{step}")
            if not any(each.startswith(f"{STEP}{run}/") for each in after):
                node.children.append(self.step(step))
        return node

    def run_with_code(self, run: str | None, version: ModelVersion | None = None) -> RunNode:
        record = _require(self.reader, Run, run or "")
        node = run_node(self.reader, record, beside=version)
        node.children = [_run_code(record)]
        return node

    def run_with_data(
        self, run: str | None, steps: Iterable[str], version: ModelVersion | None = None
    ) -> RunNode:
        """Show a run with its code and the data that these step runs rest on."""
        node = self.run_with_code(run, version)
        node.children += self.data(steps)
        return node

    def data(self, steps: Iterable[str]) -> list[LineageNode]:
        """List the data that step runs began with: content inputs, or what first steps made."""
        nodes: dict[str, LineageNode] = {}
        for step in sorted(connected_steps(self.reader, list(steps), "back")):
            before = sources(self.reader, f"{STEP}{step}")
            record = self.reader.get(StepRun, step)
            outputs = [self.reader.get(Artifact, each) for each in record.outputs] if record else []
            made = [artifact for artifact in outputs if artifact is not None]
            table = next((each for each in made if each.rows is not None), None)
            for digest in (each.removeprefix(INPUT) for each in before if each.startswith(INPUT)):
                artifact = self.reader.get(Artifact, digest)
                # A file, folder or table, not a value that was passed as it is.
                if digest in nodes or (artifact and artifact.kind not in _DATA_KINDS):
                    continue
                node = artifact_node(self.reader, digest)
                if table is not None and node.rows is None:  # as the step read it
                    node.rows, node.columns = table.rows, table.columns
                nodes[digest] = node
            if not before:
                for artifact in made:
                    if artifact.kind in _DATA_KINDS:
                        node = artifact_node(self.reader, artifact.digest, cls=DataNode)
                        node.made_by, node.paths = step, []
                        nodes[artifact.digest] = node
        return list(nodes.values())

    def step(self, step: str) -> LineageNode:
        if self.full:
            return self.step_tree(step, sources)
        record = _require(self.reader, StepRun, step)
        node = step_node(record)
        node.children = [self.run_with_data(record.run, [step])]
        return node

    def code(self, digest: str) -> LineageNode:
        return code_node(self.reader, digest)

    def artifact(self, digest: str) -> LineageNode:
        node = artifact_node(self.reader, digest)
        made = steps_that_made(self.reader, digest)
        steps = [_require(self.reader, StepRun, step) for step in made]
        if steps:
            first = min(steps, key=lambda step: (step.status == "cached", step.started))
            node.made_by = first.id
            node.children = [
                self.step(first.id) if self.full else self.run_with_data(first.run, [first.id])
            ]
        return node


class _Forward(_Walk):
    def revision(self, ref: str) -> LineageNode:
        # Its answers are rows of the log, too many to be nodes.
        return revision_node(self.reader, find_revision(self.reader, ref))

    def model(self, ref: str) -> LineageNode:
        node = model_node(self.reader, find_version(self.reader, ref))
        served = (
            each for each in targets(self.reader, f"{MODEL}{ref}") if each.startswith(REVISION)
        )
        node.children = [self.revision(each.removeprefix(REVISION)) for each in served]
        return node

    def run(self, run: str) -> LineageNode:
        node = run_node(self.reader, _require(self.reader, Run, run))
        self.add_made_from(node, self.steps_of(run), apart=run)
        return node

    def step(self, step: str) -> LineageNode:
        if self.full:
            return self.step_tree(step, targets, self.model)
        node = step_node(_require(self.reader, StepRun, step))
        self.add_made_from(node, [step])
        return node

    def code(self, digest: str) -> LineageNode:
        node = code_node(self.reader, digest)
        node.children = [self.revision(each.ref) for each in _revisions_with(self.reader, digest)]
        runs = self.reader.find(Run, snapshot=digest, order="-started", limit=None)
        self.add_made_from(node, [step for run in runs for step in self.steps_of(run.id)])
        return node

    def artifact(self, digest: str) -> LineageNode:
        node = artifact_node(self.reader, digest)
        takers = steps_that_took(self.reader, digest)
        node.taken_by = len(takers)
        if self.full:
            node.children = [self.step(step) for step in takers]
        else:
            self.add_made_from(node, takers)
        return node

    def add_made_from(self, node: LineageNode, steps: list[str], apart: str | None = None) -> None:
        """
        Add the runs that rest on step runs, newest first, with the versions that they registered.

        Runs that led to a model stand before those that did not. The versions of the run `apart`
        stand by themselves.
        """
        after = connected_steps(self.reader, steps, "forward")
        among = set(after)
        runs = [
            _require(self.reader, Run, run) for run in {step.partition("/")[0] for step in after}
        ]
        own: list[LineageNode] = []
        fruitful: list[LineageNode] = []
        barren: list[LineageNode] = []
        for run in sorted(runs, key=lambda run: -run.started):
            made = [
                self.model(version.ref)
                for version in self.reader.find(ModelVersion, run=run.id, limit=None)
                if version.step_run is None or version.step_run in among
            ]
            if run.id == apart:
                own += made
                continue
            child = run_node(self.reader, run)
            child.children = made
            (fruitful if made else barren).append(child)
        nodes = own + fruitful + barren
        shown = len(nodes) if self.full else RUNS_SHOWN
        node.children += nodes[:shown]
        node.omitted = len(nodes[shown:])


# Nodes of records


def revision_node(reader: CatalogReader, revision: Revision) -> RevisionNode:
    """Make the node of a revision."""
    live = reader.get(LiveRevision, revision.endpoint)
    return RevisionNode(
        ref=revision.ref,
        created=revision.created,
        live=live.ref if live else None,
        live_since=live.moved if live else None,
        graph=revision.graph,
        accepted=revision.accepted.get("fields", {}),
    )


def model_node(reader: CatalogReader, version: ModelVersion) -> ModelNode:
    """Make the node of a model version."""
    aliases = reader.find(Alias, name=version.name, number=version.number, limit=None)
    return ModelNode(
        ref=version.ref,
        created=version.created,
        aliases=[alias.alias for alias in aliases],
        runtime=version.runtime,
        equality=version.equality,
        metrics=version.metrics,
    )


def run_node(reader: CatalogReader, run: Run, *, beside: ModelVersion | None = None) -> RunNode:
    """Make the node of a run, without the metrics that stand `beside` it on its version."""
    return RunNode(
        ref=run.id,
        pipeline=run.pipeline,
        status=run.status,
        params=run.params,
        seed=run.seed,
        metrics={} if beside is not None and run.metrics == beside.metrics else run.metrics,
        steps=reader.count(StepRun, run=run.id),
        cached_steps=reader.count(StepRun, run=run.id, status="cached"),
        started=run.started,
        ended=run.ended,
        error=run.error,
        replay_of=run.replay_of,
    )


def step_node(step: StepRun) -> StepNode:
    """Make the node of a step run."""
    params = {
        name: given["value"]
        for name, given in step.inputs.items()
        if isinstance(given, dict) and "value" in given
    }
    return StepNode(
        ref=step.id,
        status=step.status,
        params=params,
        metrics=step.metrics,
        cached_from=step.cached_from,
        wall_s=step.wall_s,
    )


def artifact_node(
    reader: CatalogReader, digest: str, cls: type[ArtifactNode] | None = None
) -> ArtifactNode:
    """Make the node of an artifact; a `DataNode` where runs read it from a path."""
    artifact = reader.get(Artifact, digest)
    seen = reader.find(SeenFile, digest=digest, limit=None)
    node = (cls or (DataNode if seen else ArtifactNode))(ref=digest, digest=Digest(digest))
    node.paths = list(dict.fromkeys(each.path for each in seen))
    if artifact is not None:
        node.artifact_kind, node.size_bytes = artifact.kind, artifact.size_bytes
        node.rows, node.columns = artifact.rows, artifact.columns
    return node


def code_node(reader: CatalogReader, digest: str) -> CodeNode:
    """
    Make the node of a code snapshot that was asked about.

    Raises:
        NotFound: No run and no revision has it.
    """
    runs = reader.find(Run, snapshot=digest, order="started", limit=1)
    if runs:
        node = _run_code(runs[0])
        node.runs, node.first_run = reader.count(Run, snapshot=digest), runs[0].started
        return node
    served = _revisions_with(reader, digest)
    if not served:
        raise NotFound(f"No run and no revision has the code snapshot {digest}.")
    return _revision_code(served[0])


def _run_code(run: Run) -> CodeNode:
    return CodeNode(
        ref=run.snapshot or run.id, snapshot=run.snapshot, commit=run.commit, changed=run.changed
    )


def _revision_code(revision: Revision) -> CodeNode:
    functions = list(dict.fromkeys(_functions_in(revision.graph)))
    return CodeNode(ref=revision.code or "", snapshot=revision.code, functions=functions)


def _functions_in(tree: Any) -> Iterable[str]:
    """Find the functions that a graph names, however deep."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == "function" and isinstance(value, str):
            yield value
        yield from _functions_in(value)


def _revisions_with(reader: CatalogReader, code: str) -> list[Revision]:
    """List the revisions whose functions are in a state of the code, the first user first."""
    names = [each for each in targets(reader, f"code:{code}") if each.startswith(REVISION)]
    found = [find_revision(reader, name.removeprefix(REVISION)) for name in names]
    return sorted(found, key=lambda revision: revision.created)


def _require(reader: CatalogReader, kind: type[R], *key: Any) -> R:
    record = reader.get(kind, *key)
    if record is None:
        raise NotFound(
            f"The catalog has no {kind.__name__} {' '.join(map(str, key))}, "
            "to which the lineage leads.",
            "`clewline doctor` checks the store.",
        )
    return record
