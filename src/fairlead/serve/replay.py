"""
Replaying a prediction: the same rows through the same package, compared bit for bit.

The rows come from the frame as they arrived, are read and checked by the
signature and the accepted bounds that the revision pinned, and go through the
sealed package as the batch they were, and the one row alone. The answers are
written anew and held against the bytes that were sent.
"""

from __future__ import annotations

import platform
import struct
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from fairlead.errors import IntegrityError
from fairlead.project import Project
from fairlead.serve.answers import Renderer
from fairlead.serve.frame import ID_BYTES, Frame, Part
from fairlead.serve.graph import Answered
from fairlead.serve.intake import Intake
from fairlead.serve.log_reader import Logged, get, rows_of
from fairlead.serve.pool import LoadedModel, ModelPool
from fairlead.signature.accepted import Accepted, from_builtins
from fairlead.signature.check import Checker
from fairlead.signature.columns import Columns
from fairlead.store.digest import Digest
from fairlead.store.reader import FILE, CatalogReader
from fairlead.store.records import Revision

_APART = ("id", "model", "label", "value", "probabilities")
"""Fields of an answer that are named apart, or taken from the record."""


class Compared(msgspec.Struct, frozen=True):
    """One thing that was held against its record; numbers as text and as their 64 bits."""

    what: str
    recorded: str
    replayed: str
    equal: bool
    distance: str | None = None  # of two numbers that differ


class PredictionReplay(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay compared, and what it came to."""

    id: str
    equal: bool
    revision: str  # income#12
    model: str  # income@3
    package: Digest
    runtime: str
    batch_rows: int
    batch_row: int  # the prediction's place in the batch
    input: msgspec.Raw
    compared: list[Compared]
    differences: list[str]  # of the environment, that may explain a difference


def replay(project: Project, identifier: str) -> PredictionReplay:
    """
    Answer a logged prediction again and compare.

    Raises:
        NotFound: No such prediction, revision or package.
        IntegrityError: The frame or the package is not what was recorded.
    """
    logged = get(project.log, identifier)
    frame = logged.frame
    revision = _revision(project, frame)
    pool = ModelPool(project)
    pool.pin({frame.model: frame.package})
    model = pool.take(frame.model)
    try:
        compared = _compare(logged, model, from_builtins(revision.accepted))
    finally:
        model.release()
    return PredictionReplay(
        id=logged.id,
        equal=all(one.equal for one in compared),
        revision=f"{frame.endpoint}#{frame.revision}",
        model=frame.model,
        package=frame.package,
        runtime=model.package.manifest.runtime,
        batch_rows=len(frame.answers),
        batch_row=logged.row,
        input=logged.input,
        compared=compared,
        differences=_differences(model.package.manifest.versions),
    )


def _revision(project: Project, frame: Frame) -> Revision:
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        revision = reader.get(Revision, frame.endpoint, frame.revision)
    name = f"{frame.endpoint}#{frame.revision}"
    if revision is None:
        raise IntegrityError(
            f"The log says {name} answered, and the catalog has no such revision.",
            "Restore the catalog from a backup that holds it.",
        )
    pinned = revision.packages.get(frame.model)
    if pinned != frame.package:
        raise IntegrityError(
            f"The log says {frame.model} was package {frame.package[:12]}, "
            f"and {name} pins {(pinned or 'none')[:12]}.",
            "One of the two was changed after the fact: `fairlead doctor` checks both.",
        )
    return revision


def _compare(logged: Logged, model: LoadedModel, accepted: Accepted) -> list[Compared]:
    frame, row = logged.frame, logged.row
    checker = Checker(model.signature, accepted)
    columns, flags = _columns(frame, checker)
    renderer = Renderer(model.signature.output)
    ids = [frame.ids[start : start + ID_BYTES] for start in range(0, len(frame.ids), ID_BYTES)]

    outputs = model.predictor.predict(columns)
    answers = renderer.render(ids, Answered(outputs, frame.model, ()), flags)
    alone = model.predictor.predict(_only(columns, row))
    mine = [(0, flag) for flagged, flag in flags if flagged == row]
    single = renderer.render([ids[row]], Answered(alone, frame.model, ()), mine)[0]

    same = sum(old == new for old, new in zip(frame.answers, answers, strict=True))
    size = len(answers)
    return [
        *_fields(frame.answers[row], answers[row]),
        _bytes("answer, every byte", frame.answers[row], answers[row]),
        _bytes("answer of the row alone", frame.answers[row], single),
        Compared("answers of the whole batch", str(size), str(same), same == size),
    ]


def _columns(frame: Frame, checker: Checker) -> tuple[Columns, list[Any]]:
    intake = Intake(checker)
    rows = [row for part in frame.parts for row in _rows(part, intake, checker)]
    if len(rows) != len(frame.answers):
        raise IntegrityError(
            f"The frame in the log holds {len(rows)} rows and {len(frame.answers)} answers."
        )
    checked = checker.columns(rows)
    return checked.columns, checked.flags


def _rows(part: Part, intake: Intake, checker: Checker) -> list[Any]:
    if part.format == "json":
        return intake.read(part.body).rows
    rows_of(part)  # refuses a format that is not known
    return checker.decode(part.body)


def _only(columns: Columns, row: int) -> Columns:
    tensors = {name: values[row : row + 1] for name, values in columns.tensors.items()}
    return Columns(columns.numbers[row : row + 1], columns.texts[row : row + 1], tensors)


def _fields(recorded: bytes, replayed: bytes) -> list[Compared]:
    """Compare the answers field by field; the id is taken from the record."""
    old, new = _flat(msgspec.json.decode(recorded)), _flat(msgspec.json.decode(replayed))
    return [_field(name, old.get(name), new.get(name)) for name in old | new]


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    shares = {f"P({label})": share for label, share in answer.get("probabilities", {}).items()}
    known = {"label": answer.get("label"), "value": answer.get("value"), **shares}
    known = {name: value for name, value in known.items() if value is not None}
    return known | {name: answer[name] for name in answer if name not in _APART}


def _field(name: str, old: Any, new: Any) -> Compared:
    if isinstance(old, float) and isinstance(new, float):
        distance = None if _bits(old) == _bits(new) else _distance(old, new)
        return Compared(name, _number(old), _number(new), distance is None, distance)
    return Compared(name, _text(old), _text(new), old == new)


def _bytes(what: str, old: bytes, new: bytes) -> Compared:
    size = f"{len(old)} bytes"
    return Compared(what, size, size if old == new else _first_apart(old, new), old == new)


def _first_apart(old: bytes, new: bytes) -> str:
    pairs = enumerate(zip(old, new, strict=False))
    first = next((index for index, (a, b) in pairs if a != b), min(len(old), len(new)))
    return f"{len(new)} bytes, others from byte {first} on"


def _number(value: float) -> str:
    return f"{value!r} = 0x{_bits(value):016x}"


def _bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def _distance(old: float, new: float) -> str:
    ulps = abs(_ordered(old) - _ordered(new))
    return f"{ulps:,} ULP, {abs(old - new):.3g}"


def _ordered(value: float) -> int:
    """Number the floats in their order, so that neighbours differ by one."""
    bits = _bits(value)
    return -(bits & ~(1 << 63)) if bits >> 63 else bits


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _differences(recorded: dict[str, str]) -> list[str]:
    """Name the libraries that are not the ones with which the package was registered."""
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
