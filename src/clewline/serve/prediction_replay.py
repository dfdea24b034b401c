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
from clewline.model.sealed_records import SealedRecords
from clewline.project import Project
from clewline.serve.formats import body_format
from clewline.serve.graph.row_trace import CHECKSUM_BYTES, RowTrace
from clewline.serve.json_reader import JsonReader
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.frame import (
    ID_BYTES,
    LoggedBatch,
    LoggedRequest,
    RouteChoice,
    RoutePath,
)
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
        IntegrityError: The logged batch, the revision or a package differs from what was
            recorded and sealed.
    """
    logged = get_prediction(project.log, identifier)
    batch = logged.batch
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        states = {
            (one.node, one.state): reader.get(RouterState, batch.endpoint, one.node, one.state)
            for path in batch.paths
            for one in path.choices
        }
        revision = recorded_revision(SealedRecords(project, reader), batch)
    now: dict[str, RouterState | None] = {}
    loaded = LoadedRevision.load(revision, SharedModels(project), states=now.get, trial=False)
    try:
        compared = _compare(logged, _RevisionThen(loaded, states, now))
        manifests = [model.package.manifest for model in loaded.models]
    finally:
        loaded.close()
    return PredictionReplay(
        id=logged.id,
        equal=all(one.equal for one in compared),
        revision=f"{batch.endpoint}#{batch.revision}",
        model=logged.route_path.model,
        package=logged.package,
        runtime=format_list(dict.fromkeys(manifest.runtime for manifest in manifests)),
        batch_rows=len(batch.answers),
        batch_row=logged.row,
        input=logged.input,
        compared=compared,
        differences=_version_differences(
            {k: v for each in manifests for k, v in each.versions.items()}
        ),
    )


class _ReplayedRow(NamedTuple):
    answer: bytes
    trace: RowTrace


class _RevisionThen:
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

    def answer(self, batch: LoggedBatch, rows: list[Any], only: list[int]) -> list[_ReplayedRow]:
        """Answer some rows of a batch; rows with the same router states go together."""
        groups: dict[tuple[RouteChoice, ...], list[int]] = {}
        for row in only:
            known = tuple(
                msgspec.structs.replace(choice, arm="", propensity=0.0)
                for choice in batch.route_path(row).choices
            )
            groups.setdefault(known, []).append(row)
        entities: list[str | None] = []
        for request in batch.requests:
            entities += request.entities or [None] * request.count
        found: dict[int, _ReplayedRow] = {}
        for choices, members in groups.items():
            self._now.clear()
            self._now.update({one.node: self._states[one.node, one.state] for one in choices})
            ids = [batch.ids[row * ID_BYTES : (row + 1) * ID_BYTES] for row in members]
            mine = [rows[row] for row in members], [entities[row] for row in members]
            try:
                done = self.loaded.answer(*mine, ids)
            except ModelFailed as error:
                done = self.loaded.failed(error)
            answered = map(_ReplayedRow, done.answers, done.traces)
            found |= zip(members, answered, strict=True)
        return [found[row] for row in only]


def recorded_revision(records: SealedRecords, batch: LoggedBatch) -> Revision:
    """
    Get the revision that answered a batch.

    Raises:
        IntegrityError: The catalog lacks it, or pins other packages than those that are logged.
    """
    revision = records.get(Revision, batch.endpoint, batch.revision)
    name = f"{batch.endpoint}#{batch.revision}"
    if revision is None:
        raise IntegrityError(
            f"The log says that {name} answered, but the catalog has no such revision.",
            "Restore the catalog from a backup that has it.",
        )
    logged = batch.packages if batch.paths else {batch.model: batch.package}
    for model, package in logged.items():
        pinned = revision.packages.get(model)
        if pinned != package:
            raise IntegrityError(
                f"The log says {model} was package {package[:12]}, "
                f"but {name} pins {(pinned or 'none')[:12]}.",
                "One of the two was changed later: `clewline doctor` checks both.",
            )
    return revision


def read_request(request: LoggedRequest, checker: Checker) -> list[Any]:
    """Read the rows of a logged request by its own format, as they were read when it came."""
    if request.format == "json":
        return JsonReader(checker).read(request.body).rows
    format = body_format.load_format(request.format)
    rows: list[Any] = format.read_rows(request.body, request.detail, checker, request.count).rows
    return rows


def read_logged_row(logged: LoggedPrediction, checker: Checker) -> Any:
    """
    Read the row of a prediction by the format of its request.

    `logged.input` is the row as JSON, in which everything that came as CSV is a string.
    """
    index, place = logged.request
    return read_request(logged.batch.requests[index], checker)[place]


def _logged_rows(batch: LoggedBatch, checker: Checker) -> list[Any]:
    rows = [row for request in batch.requests for row in read_request(request, checker)]
    if len(rows) != len(batch.answers):
        raise IntegrityError(
            f"The logged batch has {len(rows)} rows, but {len(batch.answers)} answers."
        )
    return rows


def _compare(logged: LoggedPrediction, then: _RevisionThen) -> list[ReplayComparison]:
    batch, row = logged.batch, logged.row
    rows = _logged_rows(batch, then.loaded.checker)
    answered = then.answer(batch, rows, list(range(len(rows))))
    mine, alone = answered[row], then.answer(batch, rows, [row])[0]
    found = []
    choices = {choice.node: choice for choice in mine.trace.path.choices}
    for was in logged.route_path.choices:
        now = choices.get(was.node)
        arm, propensity = (now.arm, now.propensity) if now else ("not passed", 0.0)
        found.append(ReplayComparison(f"arm by {was.node}", was.arm, arm, was.arm == arm))
        found.append(_compare_values(f"propensity by {was.node}", was.propensity, propensity))
    if batch.checksums:  # an endpoint of one model has none
        old_nodes = _checksums(logged.route_path, batch.checksums[row])
        new_nodes = _checksums(mine.trace.path, mine.trace.checksums)
        for node in old_nodes | new_nodes:
            old = old_nodes.get(node, "not passed")
            new = new_nodes.get(node, "not passed")
            found.append(ReplayComparison(f"node {node}", old, new, old == new))
    fields, new_fields = _fields(batch.answers[row]), _fields(mine.answer)
    found += [
        _compare_values(name, fields.get(name), new_fields.get(name))
        for name in fields | new_fields
    ]
    found.append(_compare_bytes("answer, every byte", batch.answers[row], mine.answer))
    found.append(_compare_bytes("answer of the row alone", batch.answers[row], alone.answer))
    same = sum(old == new.answer for old, new in zip(batch.answers, answered, strict=True))
    size, count = str(len(answered)), str(same)
    found.append(ReplayComparison("answers of the whole batch", size, count, size == count))
    return found


def _checksums(path: RoutePath, data: bytes) -> dict[str, str]:
    pieces = (data[at : at + CHECKSUM_BYTES].hex() for at in range(0, len(data), CHECKSUM_BYTES))
    return dict(zip((node for node, _ in path.path), pieces, strict=True))


def _fields(answer: bytes) -> dict[str, Any]:
    """Return the fields of an answer except for its id, with probabilities by label."""
    read = msgspec.json.decode(answer)
    shares = {f"P({label})": share for label, share in read.get("probabilities", {}).items()}
    known = {"label": read.get("label"), "value": read.get("value"), **shares}
    known = {name: value for name, value in known.items() if value is not None}
    return known | {name: read[name] for name in read if name not in _APART}


def _compare_values(name: str, old: Any, new: Any) -> ReplayComparison:
    if isinstance(old, float) and isinstance(new, float):
        bits, new_bits = (struct.unpack("<Q", struct.pack("<d", each))[0] for each in (old, new))
        shown, new_shown = f"{old!r} = 0x{bits:016x}", f"{new!r} = 0x{new_bits:016x}"
        if bits == new_bits:
            return ReplayComparison(name, shown, new_shown, True)
        # The numbers of the two in the order of all doubles, in which neighbours differ by one.
        places = [-(each & ~(1 << 63)) if each >> 63 else each for each in (bits, new_bits)]
        distance = f"{abs(places[0] - places[1]):,} ULP, {abs(old - new):.3g}"
        return ReplayComparison(name, shown, new_shown, False, distance)
    shown, new_shown = (
        v if isinstance(v, str) else msgspec.json.encode(v).decode() for v in (old, new)
    )
    return ReplayComparison(name, shown, new_shown, old == new)


def _compare_bytes(what: str, old: bytes, new: bytes) -> ReplayComparison:
    size = f"{len(old)} bytes"
    if old == new:
        return ReplayComparison(what, size, size, True)
    pairs = enumerate(zip(old, new, strict=False))
    first = next((at for at, (a, b) in pairs if a != b), min(len(old), len(new)))
    replayed = f"{len(new)} bytes, different from byte {first} on"
    return ReplayComparison(what, size, replayed, False)


def _version_differences(recorded: dict[str, str]) -> list[str]:
    """Name the libraries with other versions than at registration."""
    differences = []
    for name, was in sorted(recorded.items()):
        try:
            found = platform.python_version() if name == "python" else version(name)
        except PackageNotFoundError:
            found = "is not installed"
        if found != was:
            differences.append(f"{name} {found}, {was} at registration")
    return differences
