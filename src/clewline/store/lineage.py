"""
The line: `why` goes back to what made something, `impact` forward to what came of it.

Reads through the catalog's reader alone, so that a command answers at once. By
default a step is not shown for its own sake: a version leads to its run, the run
to its code and its data. `full=True` shows every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from clewline.store import graph
from clewline.store.nodes import (
    Node,
    code_node,
    data_node,
    function_node,
    model_node,
    one,
    revision_node,
    revision_of,
    revisions_with,
    run_node,
    shape_facts,
    snapshot_node,
    step_node,
    table_facts,
    version_of,
)
from clewline.store.phrases import counted
from clewline.store.reader import CatalogReader
from clewline.store.records import (
    Artifact,
    ModelVersion,
    Run,
    StepRun,
)
from clewline.store.ref import RecordRef, RefKind

__all__ = ["Node", "impact", "why"]

RUNS_SHOWN = 20


def why(reader: CatalogReader, ref: RecordRef, *, full: bool = False) -> Node:
    """
    Follow the line back.

    Args:
        reader: The catalog.
        ref: Where to begin, from `resolve`.
        full: Show every step run, not runs, code and data alone.

    Returns:
        The thing itself; its children are what it was made of.

    Raises:
        NotFound: There is no such record.
    """
    return _noted(ref, _Back(reader, full).of(ref.kind, ref.id))


def impact(reader: CatalogReader, ref: RecordRef, *, full: bool = False) -> Node:
    """
    Follow the line forward.

    Args:
        reader: The catalog.
        ref: Where to begin, from `resolve`.
        full: Show every step run, and every run.

    Returns:
        The thing itself; its children are what was made of it.

    Raises:
        NotFound: There is no such record.
    """
    return _noted(ref, _Forward(reader, full).of(ref.kind, ref.id))


class _Back:
    """What a thing was made of."""

    def __init__(self, reader: CatalogReader, full: bool) -> None:
        self.reader, self.full = reader, full
        self.shown: set[str] = set()

    def of(self, kind: RefKind, text: str) -> Node:
        match kind:
            case "revision":
                return self.revision(text)
            case "model":
                return self.model(text)
            case "run":
                return self.run(text)
            case "step":
                return self.step(text)
            case "code":
                return snapshot_node(self.reader, text)
            case "artifact":
                return self.artifact(text)

    def revision(self, text: str) -> Node:
        revision = revision_of(self.reader, text)
        node = revision_node(self.reader, revision)
        node.children = [self.model(name) for name in dict.fromkeys(revision.models.values())]
        if revision.code is not None:
            node.children.insert(0, function_node(revision))
        return node

    def model(self, text: str) -> Node:
        version = version_of(self.reader, text)
        node = model_node(self.reader, version)
        step = version.step_run or _registering(self.reader, text)
        if step is not None and self.full:
            node.children = [self.run_alone(version.run, version), self.step(step)]
        elif step is not None:
            node.facts += table_facts(self.reader, step)
            node.children = [self.run_behind(version.run, [step], version)]
        elif version.run is not None:
            node.children = [self.run(version.run)]
        return node

    def run(self, text: str) -> Node:
        if self.full:
            node = self.run_alone(text)
            node.children += [self.step(step.id) for step in _last_steps(self.reader, text)]
            return node
        return self.run_behind(text, [step.id for step in _steps(self.reader, text)])

    def run_alone(self, text: str | None, version: ModelVersion | None = None) -> Node:
        """A run with its code."""
        run = one(self.reader, Run, text or "")
        node = run_node(self.reader, run, beside=version)
        node.children = [code_node(run)]
        return node

    def run_behind(
        self, text: str | None, steps: Iterable[str], version: ModelVersion | None = None
    ) -> Node:
        """A run with its code and the data that these step runs rest on."""
        node = self.run_alone(text, version)
        node.children += _data_behind(self.reader, steps)
        return node

    def step(self, text: str) -> Node:
        if self.full:
            return _step_tree(self.reader, text, self.shown, self.before)
        step = one(self.reader, StepRun, text)
        node = step_node(step)
        node.children = [self.run_behind(step.run, [text])]
        return node

    def before(self, ref: str) -> list[str]:
        return [edge.source for edge in graph.sources(self.reader, ref)]

    def artifact(self, text: str) -> Node:
        node = data_node(self.reader, text)
        made_by = _first_maker(self.reader, text)
        if made_by is not None:
            node.facts.append(("made by", made_by.id))
            node.children = [
                self.step(made_by.id) if self.full else self.run_behind(made_by.run, [made_by.id])
            ]
        return node


class _Forward:
    """What was made of a thing."""

    def __init__(self, reader: CatalogReader, full: bool) -> None:
        self.reader, self.full = reader, full
        self.shown: set[str] = set()

    def of(self, kind: RefKind, text: str) -> Node:
        match kind:
            case "revision":
                return self.revision(text)
            case "model":
                return self.model(text)
            case "run":
                return self.run(text)
            case "step":
                return self.step(text)
            case "code":
                return self.code(text)
            case "artifact":
                return self.artifact(text)

    def revision(self, text: str) -> Node:
        """A revision: its answers are rows of the log, too many to be nodes."""
        revision = revision_of(self.reader, text)
        node = revision_node(self.reader, revision)
        listed = f"`clewline predictions list --endpoint {revision.endpoint}`"
        node.facts.append(("answers", listed))
        return node

    def model(self, text: str) -> Node:
        node = model_node(self.reader, version_of(self.reader, text))
        for edge in graph.targets(self.reader, f"model:{text}"):
            if edge.target.startswith(graph.REVISION):
                name = edge.target.removeprefix(graph.REVISION)
                node.children.append(self.revision(name))
        return node

    def run(self, text: str) -> Node:
        node = run_node(self.reader, one(self.reader, Run, text))
        steps = [step.id for step in _steps(self.reader, text)]
        node.children = self.made_from(steps, apart=text)
        return node

    def step(self, text: str) -> Node:
        if self.full:
            return _step_tree(self.reader, text, self.shown, self.after, self.model)
        node = step_node(one(self.reader, StepRun, text))
        node.children = self.made_from([text])
        return node

    def after(self, ref: str) -> list[str]:
        return [edge.target for edge in graph.targets(self.reader, ref)]

    def code(self, text: str) -> Node:
        node = snapshot_node(self.reader, text)
        runs = self.reader.find(Run, snapshot=text, order="-started", limit=None)
        steps = [step.id for run in runs for step in _steps(self.reader, run.id)]
        served = revisions_with(self.reader, text)
        node.children = [self.revision(each.ref) for each in served]
        node.children += self.made_from(steps)
        return node

    def artifact(self, text: str) -> Node:
        node = data_node(self.reader, text)
        takers = graph.takers(self.reader, text)
        if self.full:
            node.children = [self.step(step) for step in takers]
        else:
            node.children = self.made_from(takers)
        if not takers:
            node.facts.append(("taken by", "no step"))
        return node

    def made_from(self, steps: list[str], apart: str | None = None) -> list[Node]:
        """The runs that rest on step runs, newest first, with the versions that they registered."""
        after = graph.steps_after(self.reader, *steps)
        runs = {
            run: one(self.reader, Run, run) for run in {step.partition("/")[0] for step in after}
        }
        ordered = sorted(runs.values(), key=lambda run: -run.started)
        nodes: list[Node] = []
        for run in ordered:
            made = [self.model(name) for name in _registered(self.reader, run.id, after)]
            if run.id == apart:
                nodes[:0] = made
            else:
                nodes.append(run_node(self.reader, run))
                nodes[-1].children = made
        return nodes if self.full else _shortened(nodes)


def _step_tree(
    reader: CatalogReader,
    first: str,
    shown: set[str],
    neighbours: Callable[[str], list[str]],
    model: Callable[[str], Node] | None = None,
) -> Node:
    """A step run and the steps that it leads to, each drawn out once; as deep as a run is long."""
    root = step_node(one(reader, StepRun, first))
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.ref in shown:
            node.facts = [("", "drawn out elsewhere in this tree")]
            continue
        shown.add(node.ref)
        for ref in dict.fromkeys(neighbours(f"step:{node.ref}")):
            kind, _, rest = ref.partition(":")
            if kind == "step":
                node.children.append(step_node(one(reader, StepRun, rest)))
                waiting.append(node.children[-1])
            elif kind == "input":
                node.children.append(data_node(reader, rest))
            elif kind == "model" and model is not None:
                node.children.append(model(rest))
    return root


def _noted(ref: RecordRef, node: Node) -> Node:
    if ref.read:
        note = f"{ref.read.path} as the newest run read it"
        if ref.read.changed:
            note += "; the file has changed since"
        if ref.read.earlier:
            note += f"; earlier runs read {ref.read.earlier} other contents there"
        node.facts.insert(0, ("", note))
    return node


def _shortened(nodes: list[Node]) -> list[Node]:
    """The first of a long list, those that led to a model before those that did not."""
    ordered = sorted(nodes, key=lambda node: not node.children and node.kind == "run")
    rest = ordered[RUNS_SHOWN:]
    if not rest:
        return ordered
    title = f"{counted(len(rest), 'more run')}; --full shows all"
    return [*ordered[:RUNS_SHOWN], Node(ref="", kind="", title=title)]


# Parts of the line


def _data_behind(reader: CatalogReader, steps: Iterable[str]) -> list[Node]:
    """The data that step runs began with: content inputs, or else what their first steps made."""
    nodes: dict[str, Node] = {}
    for step in sorted(graph.steps_before(reader, *steps)):
        edges = graph.sources(reader, f"step:{step}")
        given = [edge.source for edge in edges if edge.source.startswith(graph.INPUT)]
        for digest in (ref.removeprefix(graph.INPUT) for ref in given):
            if digest not in nodes and _is_data(reader, digest):
                nodes[digest] = data_node(reader, digest)
                nodes[digest].facts[:0] = _as_read(reader, step)
        if not edges:
            nodes.update(_made(reader, step))
    return list(nodes.values())


def _is_data(reader: CatalogReader, digest: str) -> bool:
    """Whether an input is a file, folder or table rather than a value given plainly."""
    artifact = reader.get(Artifact, digest)
    return artifact is None or artifact.kind in ("file", "tree", "table", "array")


def _as_read(reader: CatalogReader, step: str) -> list[tuple[str, str]]:
    """How many rows a step made of what it read."""
    for artifact in _outputs(reader, step):
        if artifact.rows is not None:
            return shape_facts(artifact)
    return []


def _made(reader: CatalogReader, step: str) -> dict[str, Node]:
    """What a step without inputs made, as data."""
    nodes: dict[str, Node] = {}
    for artifact in _outputs(reader, step):
        if artifact.kind in ("table", "array", "file", "tree"):
            node = data_node(reader, artifact.digest)
            node.kind, node.title = "data", f"made by {step}"
            nodes[artifact.digest] = node
    return nodes


def _outputs(reader: CatalogReader, step: str) -> list[Artifact]:
    record = reader.get(StepRun, step)
    found = [reader.get(Artifact, digest) for digest in (record.outputs if record else ())]
    return [artifact for artifact in found if artifact is not None]


def _registering(reader: CatalogReader, model: str) -> str | None:
    for edge in graph.sources(reader, f"model:{model}"):
        if edge.source.startswith(graph.STEP):
            return edge.source.removeprefix(graph.STEP)
    return None


def _registered(reader: CatalogReader, run: str, steps: Iterable[str]) -> list[str]:
    """The versions that a run registered on the ground of certain step runs."""
    among = set(steps)
    return [
        version.ref
        for version in reader.find(ModelVersion, run=run, limit=None)
        if version.step_run is None or version.step_run in among
    ]


def _first_maker(reader: CatalogReader, artifact: str) -> StepRun | None:
    """The step run that made an artifact before any other."""
    made = [one(reader, StepRun, step) for step in graph.makers(reader, artifact)]
    return min(made, key=lambda step: (step.status == "cached", step.started), default=None)


def _last_steps(reader: CatalogReader, run: str) -> list[StepRun]:
    """The step runs of a run on which no other of it rests."""
    return [
        step
        for step in _steps(reader, run)
        if not any(
            edge.target.startswith(f"step:{run}/")
            for edge in graph.targets(reader, f"step:{step.id}")
        )
    ]


def _steps(reader: CatalogReader, run: str) -> list[StepRun]:
    return reader.find(StepRun, run=run, order="index", limit=None)
