"""The lineage of one prediction: its answer, and back to the code and data that made it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import msgspec

from clewline.project import Project
from clewline.serve.log.frame import RouteChoice
from clewline.serve.log.reader import LoggedPrediction, find_prediction, get_prediction
from clewline.store import lineage
from clewline.store.ids import id_time_s
from clewline.store.lineage import LineageNode
from clewline.store.reader import FILE, CatalogReader
from clewline.store.ref import RecordRef


class PredictionNode(LineageNode, tag="prediction", kw_only=True):
    """A prediction, as it stands in the log."""

    answered: float  # seconds since the epoch
    row: msgspec.Raw  # JSON, as it came
    answer: msgspec.Raw  # JSON, as it was sent
    entity: str | None = None
    batch_rows: int
    batch_row: int  # from 0
    path: list[tuple[str, float]]  # nodes, with microseconds
    choices: list[RouteChoice]  # of each route
    shadows: dict[str, dict[str, Any]]  # name → what it answered beside


def why_prediction(project: Project, prediction: str, *, full: bool = False) -> PredictionNode:
    """
    Follow a prediction back: answer, revision, model version, run, code, data.

    Args:
        project: Holds the log and the catalog.
        prediction: Its id.
        full: Show every step run.

    Raises:
        NotFound: It is not in the log.
        IntegrityError: It was logged, and its frame is damaged.
    """
    logged = get_prediction(project.log, prediction)
    node = prediction_node(logged)
    node.shadows = read_shadows(project, logged.id)
    revision = RecordRef("revision", f"{logged.batch.endpoint}#{logged.batch.revision}")
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        node.children = [lineage.why(reader, revision, full=full)]
    return node


def prediction_node(logged: LoggedPrediction) -> PredictionNode:
    """Make the node of a prediction, without the nodes that it leads to."""
    return PredictionNode(
        ref=logged.id,
        answered=id_time_s(logged.id),
        row=logged.input,
        answer=msgspec.Raw(logged.answer),
        entity=logged.entity,
        batch_rows=len(logged.batch.answers),
        batch_row=logged.row,
        path=list(logged.route_path.path),
        choices=list(logged.route_path.choices),
        shadows={},
    )


def read_shadows(project: Project, prediction: str) -> dict[str, dict[str, Any]]:
    """
    Read what shadows answered beside a prediction, by their names; empty when there are none.

    Each is a prediction with `agrees`, `difference` and `us`, or has an `error`.
    """
    found = find_prediction(project.shadow, prediction)
    if found is None:
        return {}
    shadows: dict[str, dict[str, Any]] = msgspec.json.decode(found.answer)["shadows"]
    return shadows
