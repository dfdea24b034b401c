"""The steps of a run as a drawing: what each took from which, how it went, how long it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from clewline.formatting import format_count, format_duration
from clewline.html.charts import Chart, Tone
from clewline.html.graph_drawing import DrawnEdge, DrawnNode, draw_graph
from clewline.store.edges import STEP, sources
from clewline.store.reader import RecordQueries
from clewline.store.records import Run, StepRun

TONES: dict[str, Tone] = {
    "done": "good",
    "cached": "third",
    "running": "model",
    "failed": "bad",
    "interrupted": "other",
}


def draw_run(
    records: RecordQueries,
    run: Run,
    steps: Sequence[StepRun],
    *,
    address: Callable[[StepRun], str],
) -> Chart:
    """
    Draw the steps of a run.

    Args:
        records: Has the edges between the steps.
        run: Whose steps they are.
        steps: In the order of their calls.
        address: Step → where its box leads to.
    """
    labels = {step.id: step for step in steps}
    nodes = [
        DrawnNode(
            step.id,
            step.status,
            step.label,
            [format_duration(step.wall_s)] if step.wall_s is not None else [],
            address(step),
            TONES[step.status],
            is_dashed=step.status in ("cached", "interrupted"),
        )
        for step in steps
    ]
    edges = [
        DrawnEdge(source, step.id)
        for step in steps
        for source in dict.fromkeys(
            node.removeprefix(STEP) for node in sources(records, f"{STEP}{step.id}")
        )
        if source in labels and source != step.id
    ]
    counts = Counter(step.status for step in steps)
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    sentence = f"Run {run.id} of {run.pipeline} has {format_count(len(steps), 'step')}: {said}."
    return draw_graph("How it went", sentence, nodes, edges)
