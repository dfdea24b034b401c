"""
Replay a logged prediction: the same rows through the same packages, compared bit for bit.

The rows are read from the log as they arrived, and checked by the signature and the accepted
bounds that the revision pins. They go through every node of its graph as the same batch, and
then the one row alone, with the same ids and router states, so that each route chooses the
same arm. The new answers are compared with the bytes that were sent, and the result of each
node of a graph with its checksum. Shadows are not called.
"""

from __future__ import annotations

import platform
import struct
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import msgspec

from clewline.errors import IntegrityError, ModelFailed
from clewline.formatting import format_list
from clewline.project import Project
from clewline.serve.formats import body_format
from clewline.serve.graph.row_trace import CHECKSUM_BYTES, RowTrace
from clewline.serve.json_reader import JsonReader
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.frame import ID_BYTES, LoggedBatch, LoggedRequest, RouteChoice, RoutePath
from clewline.serve.log.reader import LoggedPrediction, get_prediction
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.signature.check import Checker
from clewline.store.reader import FILE, CatalogReader
from clewline.store.records import Revision, RouterState

_APART = ("id", "model", "label", "value", "probabilities")
"""Fields of an answer that are compared separately, or taken from the record."""


class ReplayComparison(msgspec.Struct, frozen=True):
    """One recorded value beside the replayed one; numbers as text and as their 64 bits."""

    what: str
    recorded: str
    replayed: str
    equal: bool
    distance: str | None = None  # of two numbers that differ


class PredictionReplay(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay."""

    id: str
    equal: bool
    revision: str  # income#12
    model: str  # income@3
    package: str  # digest; of several models joined by `+`, as they are
    runtime: str
    batch_rows: int
    batch_row: int  # the prediction's place in the batch
    input: msgspec.Raw
    compared: list[ReplayComparison]
    differences: list[str]  # of the environment, that may explain a difference


def replay_prediction(project: Project, identifier: str) -> PredictionReplay:
    """
    Answer a logged prediction again, and compare.

    Raises:
        NotFound: The prediction, its revision or a package does not exist.
        IntegrityError: The logged batch or a package differs from what was recorded.
    """
    logged = get_prediction(project.log, identifier)
    frame = logged.batch
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        states = _states(reader, frame)
        revision = _revision(reader, frame)
    now: dict[str, RouterState | None] = {}
    loaded = LoadedRevision.load(revision, SharedModels(project), states=now.get, trial=False)
    try:
        compared = _compare(logged, _Again(loaded, states, now))
        manifests = [model.package.manifest for model in loaded.models]
    finally:
        loaded.close()
    return PredictionReplay(
        id=logged.id,
        equal=all(one.equal for one in compared),
        revision=f"{frame.endpoint}#{frame.revision}",
        model=logged.route_path.model,
        package=logged.package,
        runtime=format_list(dict.fromkeys(manifest.runtime for manifest in manifests)),
        batch_rows=len(frame.answers),
        batch_row=logged.row,
        input=logged.input,
        compared=compared,
        differences=_differences({k: v for each in manifests for k, v in each.versions.items()}),
    )


class _Again:
    """A revision that answers rows with the recorded states of the routers."""

    def __init__(
        self,
        loaded: LoadedRevision,
        states: dict[tuple[str, int], RouterState | None],
        now: dict[str, RouterState | None],
    ) -> None:
        self.loaded = loaded
        self._states = states
        self._now = now

    def answer(self, frame: LoggedBatch, rows: list[Any], only: list[int]) -> list[_Row]:
        """Answer some rows of a batch; rows with the same router states go together."""
        groups: dict[tuple[RouteChoice, ...], list[int]] = {}
        for row in only:
            known = tuple(
                msgspec.structs.replace(choice, arm="", propensity=0.0)
                for choice in frame.route_path(row).choices
            )
            groups.setdefault(known, []).append(row)
        found: dict[int, _Row] = {}
        for choices, members in groups.items():
            self._now.clear()
            self._now.update({one.node: self._states[one.node, one.state] for one in choices})
            found |= zip(members, self._batch(frame, rows, members), strict=True)
        return [found[row] for row in only]

    def _batch(self, frame: LoggedBatch, rows: list[Any], members: list[int]) -> list[_Row]:
        entities = _entities(frame)
        ids = [frame.ids[row * ID_BYTES : (row + 1) * ID_BYTES] for row in members]
        mine = [rows[row] for row in members], [entities[row] for row in members]
        try:
            done = self.loaded.answer(*mine, ids)
        except ModelFailed as error:
            done = self.loaded.failed(error)
        return [_Row(*row) for row in zip(done.answers, done.traces, strict=True)]


class _Row(NamedTuple):
    answer: bytes
    trace: RowTrace


def _states(reader: CatalogReader, frame: LoggedBatch) -> dict[tuple[str, int], RouterState | None]:
    """Read the router states that the batch names; 0 is none."""
    named = {(one.node, one.state) for way in frame.paths for one in way.choices}
    return {
        (node, state): reader.get(RouterState, frame.endpoint, node, state) if state else None
        for node, state in named
    }


def _entities(frame: LoggedBatch) -> list[str | None]:
    entities: list[str | None] = []
    for part in frame.requests:
        entities += part.entities or [None] * part.count
    return entities


def _revision(reader: CatalogReader, frame: LoggedBatch) -> Revision:
    revision = reader.get(Revision, frame.endpoint, frame.revision)
    name = f"{frame.endpoint}#{frame.revision}"
    if revision is None:
        raise IntegrityError(
            f"The log says that {name} answered, but the catalog has no such revision.",
            "Restore the catalog from a backup that holds it.",
        )
    logged = frame.packages if frame.paths else {frame.model: frame.package}
    for model, package in logged.items():
        pinned = revision.packages.get(model)
        if pinned != package:
            raise IntegrityError(
                f"The log says {model} was package {package[:12]}, "
                f"and {name} pins {(pinned or 'none')[:12]}.",
                "One of the two was changed later: `clewline doctor` checks both.",
            )
    return revision


def _compare(logged: LoggedPrediction, again: _Again) -> list[ReplayComparison]:
    frame, row = logged.batch, logged.row
    rows = _all_rows(frame, again.loaded.checker)
    answered = again.answer(frame, rows, list(range(len(rows))))
    mine, alone = answered[row], again.answer(frame, rows, [row])[0]
    same = sum(old == new.answer for old, new in zip(frame.answers, answered, strict=True))
    size = len(answered)
    return [
        *_routes(logged.route_path, mine.trace.path),
        *_nodes(logged, mine.trace),
        *_fields(frame.answers[row], mine.answer),
        _bytes("answer, every byte", frame.answers[row], mine.answer),
        _bytes("answer of the row alone", frame.answers[row], alone.answer),
        ReplayComparison("answers of the whole batch", str(size), str(same), same == size),
    ]


def _routes(old: RoutePath, new: RoutePath) -> list[ReplayComparison]:
    """Compare the arm that each route chose, and its probability."""
    again = {choice.node: choice for choice in new.choices}
    found = []
    for was in old.choices:
        now = again.get(was.node)
        arm, propensity = (now.arm, now.propensity) if now else ("not passed", 0.0)
        found.append(ReplayComparison(f"arm by {was.node}", was.arm, arm, was.arm == arm))
        found.append(_field(f"propensity by {was.node}", was.propensity, propensity))
    return found


def _nodes(logged: LoggedPrediction, trace: RowTrace) -> list[ReplayComparison]:
    """Compare the checksums of each node's result; an endpoint of one model has none."""
    if not logged.batch.checksums:
        return []
    old = _checksums(logged.route_path, logged.batch.checksums[logged.row])
    new = _checksums(trace.path, trace.checksums)
    return [
        ReplayComparison(
            f"node {node}", old.get(node, "not passed"), new.get(node, "not passed"), same
        )
        for node in old | new
        for same in (old.get(node) == new.get(node),)
    ]


def _checksums(way: RoutePath, marks: bytes) -> dict[str, str]:
    pieces = (marks[at : at + CHECKSUM_BYTES].hex() for at in range(0, len(marks), CHECKSUM_BYTES))
    return dict(zip((node for node, _ in way.path), pieces, strict=True))


def _all_rows(frame: LoggedBatch, checker: Checker) -> list[Any]:
    reader = JsonReader(checker)
    rows = [row for part in frame.requests for row in _rows(part, reader, checker)]
    if len(rows) != len(frame.answers):
        raise IntegrityError(
            f"The logged batch has {len(rows)} rows, but {len(frame.answers)} answers."
        )
    return rows


def _rows(part: LoggedRequest, reader: JsonReader, checker: Checker) -> list[Any]:
    if part.format == "json":
        return reader.read(part.body).rows
    rows: list[Any] = (
        body_format.load_format(part.format)
        .read_rows(part.body, part.detail, checker, part.count)
        .rows
    )
    return rows


def _fields(recorded: bytes, replayed: bytes) -> list[ReplayComparison]:
    """Compare the answers field by field, except for the id."""
    old, new = _flat(msgspec.json.decode(recorded)), _flat(msgspec.json.decode(replayed))
    return [_field(name, old.get(name), new.get(name)) for name in old | new]


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    shares = {f"P({label})": share for label, share in answer.get("probabilities", {}).items()}
    known = {"label": answer.get("label"), "value": answer.get("value"), **shares}
    known = {name: value for name, value in known.items() if value is not None}
    return known | {name: answer[name] for name in answer if name not in _APART}


def _field(name: str, old: Any, new: Any) -> ReplayComparison:
    if isinstance(old, float) and isinstance(new, float):
        distance = None if _bits(old) == _bits(new) else _distance(old, new)
        return ReplayComparison(name, _number(old), _number(new), distance is None, distance)
    return ReplayComparison(name, _text(old), _text(new), old == new)


def _bytes(what: str, old: bytes, new: bytes) -> ReplayComparison:
    size = f"{len(old)} bytes"
    return ReplayComparison(what, size, size if old == new else _first_apart(old, new), old == new)


def _first_apart(old: bytes, new: bytes) -> str:
    pairs = enumerate(zip(old, new, strict=False))
    first = next((index for index, (a, b) in pairs if a != b), min(len(old), len(new)))
    return f"{len(new)} bytes, different from byte {first} on"


def _number(value: float) -> str:
    return f"{value!r} = 0x{_bits(value):016x}"


def _bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def _distance(old: float, new: float) -> str:
    ulps = abs(_ordered(old) - _ordered(new))
    return f"{ulps:,} ULP, {abs(old - new):.3g}"


def _ordered(value: float) -> int:
    """Return the number of a float in the order of all floats: neighbours differ by one."""
    bits = _bits(value)
    return -(bits & ~(1 << 63)) if bits >> 63 else bits


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _differences(recorded: dict[str, str]) -> list[str]:
    """Name the libraries whose versions differ from those at registration."""
    found = {name: _installed(name) for name in recorded}
    return [
        f"{name} {found[name] or 'is not installed'}, {was} at registration"
        for name, was in sorted(recorded.items())
        if found[name] != was
    ]


def _installed(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:
        return None
