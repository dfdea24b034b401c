"""The graph of an endpoint as a drawing: each node with its time, arms with their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clewline.formatting import format_count
from clewline.html.charts import Chart, Tone
from clewline.html.graph_drawing import DrawnEdge, DrawnNode, draw_graph
from clewline.serve.graph.tree import Tree, children, of_revision, title
from clewline.serve.metrics.live_metrics import EndpointCounts
from clewline.store.records import Revision

TONES: Mapping[str, Tone] = {
    "model": "good",
    "route": "model",
    "combine": "fourth",
    "transform": "third",
    "after": "third",
    "shadow": "plain",
}

REQUEST = "request"


def draw_endpoint(
    revision: Revision,
    counts: EndpointCounts | None = None,
    *,
    address: Callable[[str, str], str | None],
) -> Chart:
    """
    Draw the way of a row through the graph of a revision.

    Args:
        revision: Whose graph it is.
        counts: What its server counted: the times of nodes, and the rows of arms.
        address: Kind and id of a record → where a model leads to.
    """
    root = of_revision(revision)
    nodes = [DrawnNode(REQUEST, "rows", revision.endpoint, [revision.ref], is_asked=True)]
    edges: list[DrawnEdge] = []
    waiting: list[tuple[str, str, Tree, bool]] = [(REQUEST, "", root, False)]
    while waiting:
        parent, key, tree, is_beside = waiting.pop(0)
        place = f"{parent}/{key or 'root'}"
        is_shadow = is_beside or key.startswith("shadows.")
        nodes.append(_drawn(place, tree, counts, address, is_shadow=is_shadow))
        edges.append(DrawnEdge(parent, place, _label(key, tree, counts), is_shadow))
        waiting += [(place, name, child, is_shadow) for name, child in children(tree)]
    models = len(dict.fromkeys(revision.models.values()))
    sentence = f"A row of {revision.ref} passes {format_count(len(nodes) - 1, 'node')}"
    sentence += f" with {format_count(models, 'model version')}."
    if counts is not None and counts.node_batches:
        sentence += " Times are of a batch, on average since the server started."
    return draw_graph(f"The graph of {revision.ref}", sentence, nodes, edges)


def _drawn(
    place: str,
    tree: Tree,
    counts: EndpointCounts | None,
    address: Callable[[str, str], str | None],
    *,
    is_shadow: bool,
) -> DrawnNode:
    name, kind, said = str(tree["name"]), str(tree["kind"]), title(tree)
    notes = [said] if said != name else []
    if counts is not None and (batches := counts.node_batches.get(name)):
        notes.append(f"{counts.node_seconds[name] / batches * 1e3:.3g} ms a batch")
    model = tree.get("model")
    where = address("model", model) if isinstance(model, str) and "+" not in model else None
    shown = f"{kind} (shadow)" if is_shadow else kind
    tone: Tone = "plain" if is_shadow else TONES.get(kind, "other")
    return DrawnNode(place, shown, name, notes, where, tone, is_dashed=is_shadow)


def _label(key: str, tree: Tree, counts: EndpointCounts | None) -> str:
    group, _, name = key.partition(".")
    if group != "arms":
        return name if name and name != tree["name"] else ""
    total = sum(counts.arms.values()) if counts is not None else 0
    rows = counts.arms.get(name, 0.0) if counts is not None else 0.0
    return f"{name} {rows / total:.0%}" if total else name
