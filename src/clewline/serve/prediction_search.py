"""
Searching the prediction log: newest first, within a stated number of rows a page.

An id and a time are found by bisection. Everything else is looked for among the rows, and a page
that has looked at its share of them says how far it came and where the next one begins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec

from clewline.errors import InvalidInput, NotFound, UsageError, did_you_mean
from clewline.formatting import parse_moment
from clewline.project import Project
from clewline.serve.condition import Condition, parse_condition
from clewline.serve.log.frame import LoggedBatch, decode_frame, find_frame
from clewline.serve.log.reader import (
    LoggedPrediction,
    LogLocation,
    newest_first,
    read_batch,
    try_again,
)
from clewline.serve.log.windowed_file import WALK_BYTES, WindowedFile, open_windowed
from clewline.store.ids import id_bytes, id_text, id_time_s
from clewline.store.reader import FILE, CatalogReader
from clewline.store.records import LiveRevision

ROWS_LOOKED_AT = 5_000
"""Rows that one page looks at."""
BATCHES_KEPT = 64
HEXADECIMAL = frozenset("0123456789abcdef")


class PredictionFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is looked for; empty and None leave a part open."""

    id: str = ""  # how it begins
    endpoint: str = ""
    since: float | None = None  # seconds since the epoch
    until: float | None = None
    label: str = ""
    arm: str = ""
    model: str = ""  # income@3
    entity: str = ""
    flagged: bool | None = None
    tried: bool | None = None
    where: str = ""  # a condition over answer and fields: `age > 60 and probability < 0.7`


class FoundPredictions(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what was found."""

    items: list[LoggedPrediction]
    looked_at: int  # rows
    next: str | None  # the id before which the next page begins; None at the end
    reached: float | None  # the time of the oldest row that was looked at


def read_prediction_filter(given: dict[str, str]) -> PredictionFilter:
    """
    Read a filter from texts, as the command line and addresses give them.

    Raises:
        UsageError: A time is none, or an id is not hexadecimal.
        InvalidConfig: The condition is none.
    """
    texts = {name: text.strip() for name, text in given.items() if text.strip()}
    found: dict[str, Any] = {
        name: texts[name]
        for name in ("endpoint", "label", "arm", "model", "entity", "where")
        if name in texts
    }
    if "where" in found:
        parse_condition(found["where"])
    identifier = texts.get("id", "").lower().replace("-", "")
    if not set(identifier) <= HEXADECIMAL or len(identifier) > 32:
        raise UsageError(f"{texts['id']!r} begins no prediction id.", "Write hexadecimal digits.")
    for name in ("since", "until"):
        if name in texts and (moment := parse_moment(texts[name], time.time())) is not None:
            found[name] = moment
        elif name in texts:
            raise UsageError(
                f"{texts[name]!r} is not a time.",
                "Write 2026-11-30, 2026-11-30T12:00Z, or 24h for a day ago.",
            )
    for name in ("flagged", "tried"):
        if name in texts:
            if texts[name] not in ("yes", "no"):
                raise InvalidInput(f"{name} is yes or no, not {texts[name]!r}.")
            found[name] = texts[name] == "yes"
    return PredictionFilter(id=identifier, **found)


def search_predictions(
    log: Path,
    wanted: PredictionFilter,
    *,
    limit: int = 50,
    before: str | None = None,
    look_at: int = ROWS_LOOKED_AT,
) -> FoundPredictions:
    """
    Find predictions, newest first.

    Args:
        log: The folder of the log.
        wanted: What is looked for.
        limit: Maximum number of predictions.
        before: Only those older than this id: the `next` of the page before.
        look_at: Rows to look at before an unfinished page is returned.

    Raises:
        NotFound: `before` is no prediction id.
        IntegrityError: A frame is damaged.
    """
    return try_again(log, lambda: _search(log, wanted, limit, before, look_at))


def _search(
    log: Path, wanted: PredictionFilter, limit: int, before: str | None, look_at: int
) -> FoundPredictions:
    low, high = _bounds(wanted, before)
    condition = parse_condition(wanted.where) if wanted.where else None
    items: list[LoggedPrediction] = []
    looked = 0
    for entry_id, found in _rows(log, low, high, wanted.endpoint.encode()):
        looked += 1
        if found is not None and _matches(found, wanted, condition):
            items.append(found)
        if len(items) == limit or looked == look_at:
            last = id_text(entry_id)
            return FoundPredictions(
                items=items, looked_at=looked, next=last, reached=id_time_s(last)
            )
    return FoundPredictions(items=items, looked_at=looked, next=None, reached=None)


def require_endpoint(project: Project, name: str) -> None:
    """
    Check that an endpoint has ever been applied.

    Raises:
        NotFound: None of this name; names the nearest.
    """
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        known = sorted({found.endpoint for found in reader.find(LiveRevision, limit=None)})
    if name not in known:
        raise NotFound(
            f"There is no endpoint {name!r}.",
            did_you_mean(name, known, "`clewline endpoints list` lists them."),
        )


def _bounds(wanted: PredictionFilter, before: str | None) -> tuple[bytes, bytes]:
    """Return the least id that may match, and the one that all must be below."""
    low, high = b"\x00" * 16, b"\xff" * 16
    if wanted.id:
        low = bytes.fromhex(wanted.id.ljust(32, "0"))
        last = int(wanted.id.ljust(32, "f"), 16) + 1
        high = min(high, last.to_bytes(17, "big")[-16:]) if last < 1 << 128 else high
    if wanted.since is not None:
        low = max(low, _first_id(wanted.since))
    if wanted.until is not None:
        high = min(high, _first_id(wanted.until))
    if before is not None:
        high = min(high, id_bytes(before))
    return low, high


def _first_id(time_s: float) -> bytes:
    ms = min(max(int(time_s * 1000), 0), (1 << 48) - 1)
    return (ms << 80).to_bytes(16, "big")


def _rows(
    log: Path, low: bytes, high: bytes, holding: bytes
) -> Iterator[tuple[bytes, LoggedPrediction | None]]:
    """
    Yield the predictions between two ids, newest first; each frame is read once.

    None stands for those whose frame lacks the bytes `holding`: it need not be decoded.
    """
    batches: dict[tuple[Path, int], LoggedBatch | None] = {}
    opened: dict[Path, WindowedFile] = {}
    with ExitStack() as files:
        for entry, segment in newest_first(log, high):
            if entry.id < low:
                return
            place = segment.frames, entry.offset
            if place not in batches:
                if len(batches) > BATCHES_KEPT:
                    del batches[next(iter(batches))]
                if segment.frames not in opened:
                    opened[segment.frames] = files.enter_context(
                        open_windowed(segment.frames, WALK_BYTES)
                    )
                batches[place] = _read(opened[segment.frames], LogLocation(*place, 0), holding)
            batch = batches[place]
            if batch is None:
                yield entry.id, None
                continue
            location = LogLocation(*place, entry.position)
            yield entry.id, LoggedPrediction(id_text(entry.id), batch, entry.position, location)


def _read(frames: WindowedFile, location: LogLocation, holding: bytes) -> LoggedBatch | None:
    span = find_frame(frames, location.offset)
    if span is None:  # written since the file was opened, or damaged: look anew
        return read_batch(location)
    return decode_frame(frames, span) if holding in frames.read(span.offset, span.end) else None


def _matches(
    found: LoggedPrediction, wanted: PredictionFilter, condition: Condition | None
) -> bool:
    """Say whether a prediction matches; what is cheap to know is asked first."""
    if wanted.endpoint and found.batch.endpoint != wanted.endpoint:
        return False
    if wanted.tried is not None and found.tried != wanted.tried:
        return False
    if wanted.entity and found.entity != wanted.entity:
        return False
    if wanted.model or wanted.arm:
        path = found.route_path
        if wanted.arm and wanted.arm not in path.arm.split("/") and wanted.arm != path.arm:
            return False
        if wanted.model and wanted.model not in path.model.split("+"):
            return False
    if not (wanted.label or wanted.flagged is not None or condition is not None):
        return True
    answer: dict[str, Any] = msgspec.json.decode(found.answer)
    if wanted.label and str(answer.get("label")) != wanted.label:
        return False
    if wanted.flagged is not None and bool(answer.get("flags")) != wanted.flagged:
        return False
    if condition is None:
        return True
    row: Any = msgspec.json.decode(found.input)
    return condition.holds(answer, row if isinstance(row, dict) else {})
