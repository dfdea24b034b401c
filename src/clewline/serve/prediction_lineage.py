"""The lineage of one prediction: its answer, and back to the code and data that made it."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

import msgspec

from clewline.errors import IntegrityError, NotFound
from clewline.model.registry_chain import APPLIED, PROMOTED, ROLLED_BACK
from clewline.model.sealed_changes import SealedChange, sealed_changes
from clewline.project import Project
from clewline.serve.log.frame import RouteChoice
from clewline.serve.log.reader import (
    LoggedPrediction,
    find_prediction,
    get_prediction,
    latest_predictions,
)
from clewline.store import lineage
from clewline.store.ids import id_time_s
from clewline.store.lineage import RUNS_SHOWN, LineageNode
from clewline.store.reader import FILE, CatalogReader
from clewline.store.records import ExplanationRecord
from clewline.store.ref import RecordRef, resolve

PREDICTIONS_SHOWN = 3
CHANGES_SHOWN = 5
PREDICTIONS_LOOKED_AT = 1_000
"""The newest ones of the whole log, among which `add_predictions` looks."""

_PREDICTION = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


class PredictionDetails(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A prediction with everything that the log holds of it."""

    id: str
    time: float  # seconds since the epoch
    endpoint: str
    revision: str  # income#12
    model: str
    package: str
    arm: str = ""
    choices: list[RouteChoice] = []  # of each route: node, arm, propensity, state of the router
    input: msgspec.Raw  # the row as it came, JSON
    answer: msgspec.Raw  # as it was sent, JSON
    entity: str | None = None
    tried: bool = False  # the row was made up to see the answer
    batch_rows: int
    batch_row: int  # from 0
    path: list[tuple[str, float]]  # nodes, with microseconds
    segment: str
    offset: int
    shadows: dict[str, dict[str, Any]] = {}  # name → what it answered beside


class ExplanationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A stored explanation of a prediction, without what it says."""

    id: str
    kind: str
    status: str
    created: float


def follow_line(
    project: Project,
    reader: CatalogReader,
    text: str,
    *,
    forward: bool = False,
    full: bool = False,
    runs_shown: int = RUNS_SHOWN,
) -> LineageNode:
    """
    Follow the line of anything back, or forward.

    Args:
        project: Holds the log.
        reader: Its catalog.
        text: A prediction's id, or a reference as `store.ref` lists them.
        forward: To what came of it.
        full: Show every step run.
        runs_shown: How many runs stand beneath a thing at most, forward.

    Raises:
        NotFound: Nothing is called so.
        UsageError: Several things are.
        IntegrityError: The prediction's frame is damaged.
    """
    node = _follow(project, reader, text, forward=forward, full=full, runs_shown=runs_shown)
    add_changes(reader, node)
    return node


def _follow(
    project: Project,
    reader: CatalogReader,
    text: str,
    *,
    forward: bool,
    full: bool,
    runs_shown: int,
) -> LineageNode:
    if _PREDICTION.fullmatch(text):
        return (
            impact_prediction(project, text)
            if forward
            else why_prediction(project, text, full=full)
        )
    ref = resolve(reader, text, prefer="model" if forward else "endpoint")
    if forward:
        return lineage.impact(reader, ref, full=full, runs_shown=runs_shown)
    if ref.kind == "explanation":
        return why_explanation(project, ref.id, full=full)
    return lineage.why(reader, ref, full=full)


def add_changes(reader: CatalogReader, root: LineageNode) -> None:
    """
    Add to versions and revisions of a lineage who changed them and why: `changes` in their facts.

    Only what somebody stated, a person or a reason, is added, the newest first.
    """
    waiting, changed = [root], list[LineageNode]()
    while waiting:
        each = waiting.pop()
        waiting.extend(each.children)
        if each.kind in ("model", "revision"):
            changed.append(each)
    if not changed:
        return
    of_ref: dict[str, list[SealedChange]] = {}
    for change in sealed_changes(reader, kinds=(PROMOTED, APPLIED, ROLLED_BACK)):
        for ref in change.refs if change.person or change.reason else ():
            of_ref.setdefault(ref, []).append(change)
    for each in changed:
        if each.ref in of_ref:
            each.facts["changes"] = of_ref[each.ref][:CHANGES_SHOWN]


def add_predictions(project: Project, node: LineageNode) -> None:
    """
    Add the newest predictions of each revision in a lineage to its children.

    Looks at the newest 1,000 predictions of the log. A revision's facts then hold
    `predictions` (how many of those are its own) and `looked_at` (how many there were).
    """
    waiting, revisions = [node], list[LineageNode]()
    while waiting:
        each = waiting.pop()
        waiting.extend(each.children)
        if each.kind == "revision":
            revisions.append(each)
    newest = latest_predictions(project.log, limit=PREDICTIONS_LOOKED_AT).items if revisions else []
    of_revision: dict[str, list[LoggedPrediction]] = {}
    for logged in newest:
        ref = f"{logged.batch.endpoint}#{logged.batch.revision}"
        of_revision.setdefault(ref, []).append(logged)
    for each in revisions:
        found = of_revision.get(each.ref, [])
        each.facts |= {"predictions": len(found), "looked_at": len(newest)}
        each.children += [
            LineageNode(kind="prediction", ref=logged.id, record=prediction_details(logged))
            for logged in found[:PREDICTIONS_SHOWN]
        ]


def why_explanation(project: Project, explanation: str, *, full: bool = False) -> LineageNode:
    """
    Follow an explanation back: the prediction that it explains, and what made that.

    Args:
        project: Holds the log and the catalog.
        explanation: Its id.
        full: Show every step run.

    Raises:
        NotFound: There is no such explanation.
    """
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        node = lineage.why(reader, RecordRef("explanation", explanation), full=full)
    try:
        node.children = [why_prediction(project, node.record.prediction, full=full)]
    except (NotFound, IntegrityError) as error:  # the explanation outlives its prediction
        node.facts["missing"] = error.message
    return node


def why_prediction(project: Project, prediction: str, *, full: bool = False) -> LineageNode:
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
    node = prediction_node(project, prediction)
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        revision = RecordRef("revision", node.record.revision)
        node.children = [lineage.why(reader, revision, full=full)]
    return node


def impact_prediction(project: Project, prediction: str) -> LineageNode:
    """
    Follow a prediction forward, to its explanations.

    Raises:
        NotFound, IntegrityError: As `why_prediction`.
    """
    node = prediction_node(project, prediction)
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        node.children = [
            lineage.impact(reader, RecordRef("explanation", each.id))
            for each in node.facts.pop("explanations", ())
        ]
    return node


def prediction_node(project: Project, prediction: str) -> LineageNode:
    """
    Read the node of a prediction, without what it leads to.

    Raises:
        NotFound, IntegrityError: As `why_prediction`.
    """
    record = read_prediction(project, prediction)
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        stored = reader.find(ExplanationRecord, prediction=record.id, order="created", limit=None)
    node = LineageNode(kind="prediction", ref=record.id, record=record)
    if stored:
        node.facts["explanations"] = [
            ExplanationSummary(id=each.id, kind=each.kind, status=each.status, created=each.created)
            for each in stored
        ]
    return node


def read_prediction(project: Project, prediction: str) -> PredictionDetails:
    """
    Read a prediction, with what shadows answered beside it.

    Raises:
        NotFound, IntegrityError: As `why_prediction`.
    """
    record = prediction_details(get_prediction(project.log, prediction))
    beside = find_prediction(project.shadow, record.id)
    if beside is None:
        return record
    shadows = msgspec.json.decode(beside.answer)["shadows"]
    return msgspec.structs.replace(record, shadows=shadows)


def prediction_details(logged: LoggedPrediction) -> PredictionDetails:
    """Return a logged prediction as a record, without its shadows."""
    batch, path = logged.batch, logged.route_path
    return PredictionDetails(
        id=logged.id,
        time=id_time_s(logged.id),
        endpoint=batch.endpoint,
        revision=f"{batch.endpoint}#{batch.revision}",
        model=path.model,
        package=logged.package,
        arm=path.arm,
        choices=list(path.choices),
        input=logged.input,
        answer=msgspec.Raw(logged.answer),
        entity=logged.entity,
        tried=logged.tried,
        batch_rows=len(batch.answers),
        batch_row=logged.row,
        path=list(path.path),
        segment=str(logged.location.segment),
        offset=logged.location.offset,
    )
