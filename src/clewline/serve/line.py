"""The line of one prediction: its answer, and back to the code and data that made it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import msgspec

from clewline.project import Project
from clewline.serve.log.frame import RouteChoice
from clewline.serve.log.reader import LoggedPrediction, find_prediction, get_prediction
from clewline.store.ids import id_time_s
from clewline.store.lineage import Node
from clewline.store.lineage import why as why_record
from clewline.store.phrases import counted, named, number, some
from clewline.store.reader import FILE, CatalogReader
from clewline.store.ref import RecordRef

FIELDS_SHOWN = 5


def why(project: Project, identifier: str, *, full: bool = False) -> Node:
    """
    Follow a prediction back: answer, revision, model version, run, code, data.

    Args:
        project: Whose log and catalog are read.
        identifier: The prediction's id.
        full: Every field of the row, and every step run.

    Raises:
        NotFound: It is not in the log.
        IntegrityError: It was logged, and its frame is damaged.
    """
    logged = get_prediction(project.log, identifier)
    node = prediction_node(logged, full=full)
    node.facts += [("shadow", shadow_said(*one)) for one in shadows(project, logged.id).items()]
    revision = RecordRef("revision", f"{logged.batch.endpoint}#{logged.batch.revision}")
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        node.children = [why_record(reader, revision, full=full)]
    return node


def prediction_node(logged: LoggedPrediction, *, full: bool = False) -> Node:
    """A prediction as a node of the line, without what it leads to."""
    frame = logged.batch
    answer = msgspec.json.decode(logged.answer)
    row = msgspec.json.decode(logged.input)
    facts = [("row", named(row, len(row) if full else FIELDS_SHOWN))]
    if shares := answer.get("probabilities"):
        facts.append(("probabilities", named(shares)))
    facts += [("flag", _flag(flag)) for flag in answer.get("flags", ())]
    if logged.entity is not None:
        facts.append(("about", logged.entity))
    facts.append(("answered", moment(id_time_s(logged.id))))
    size = len(frame.answers)
    place = f"row {logged.row + 1} of {size}" if size > 1 else "alone"
    facts += [("arm", chosen(choice)) for choice in logged.route_path.choices]
    took = some(f"{node} {spent_us:.0f} µs" for node, spent_us in logged.route_path.path)
    facts.append(("batch", f"{place}, {took}"))
    return Node(ref=logged.id, kind="prediction", title=headline(answer), facts=facts)


def headline(answer: dict[str, Any]) -> str:
    """
    Say an answer in a few words.

    >>> headline({"label": "<=50K", "probabilities": {"<=50K": 0.97, ">50K": 0.03}})
    '<=50K (0.97)'
    >>> headline({"value": 12.3})
    '12.3'
    """
    if "error" in answer:
        return f"failed: {answer['error']['message']}"
    if "label" not in answer:
        return number(answer["value"])
    label = answer["label"]
    key = label if isinstance(label, str) else msgspec.json.encode(label).decode()
    share = answer.get("probabilities", {}).get(key)
    return key if share is None else f"{key} ({number(share)})"


def shadows(project: Project, identifier: str) -> dict[str, dict[str, Any]]:
    """
    Read what the shadows said beside a prediction, by their names; nothing where none was asked.

    Each is a prediction with `agrees`, `difference` and `us`, or an `error`.
    """
    found = find_prediction(project.shadow, identifier)
    if found is None:
        return {}
    said: dict[str, dict[str, Any]] = msgspec.json.decode(found.answer)["shadows"]
    return said


def shadow_said(name: str, said: dict[str, Any]) -> str:
    """
    Say in a few words what a shadow said.

    >>> shadow_said("candidate", {"model": "a@2", "value": 2, "agrees": False, "difference": 0.5})
    'candidate (a@2) differs by 0.5: 2'
    """
    if "error" in said:
        return f"{name} failed: {said['error']}"
    verb = "agrees" if said["agrees"] else "differs"
    difference = f" by {number(said['difference'])}" if said["difference"] else ""
    return f"{name} ({said['model']}) {verb}{difference}: {headline(said)}"


def chosen(choice: RouteChoice) -> str:
    """
    Say what a route chose.

    >>> chosen(Choice("route", "challenger", 0.1))
    'challenger by route, propensity 0.1'
    """
    state = f", state {choice.state}" if choice.state else ""
    return f"{choice.arm} by {choice.node}, propensity {number(choice.propensity)}{state}"


def moment(time_s: float) -> str:
    """
    Write a moment, to the millisecond.

    >>> moment(0.5)
    '1970-01-01 00:00:00.500 UTC'
    """
    text = datetime.fromtimestamp(time_s, UTC).isoformat(" ", "milliseconds")
    return f"{text.removesuffix('+00:00')} UTC"


def _flag(flag: dict[str, Any]) -> str:
    known = flag.get("bounds")
    if known is not None:
        return f"{flag['field']} {flag['value']} is {flag['flag']} {known}"
    levels = counted(len(flag.get("levels") or ()), "level")
    return f"{flag['field']} {flag['value']!r} is an {flag['flag']} ({levels} known)"
