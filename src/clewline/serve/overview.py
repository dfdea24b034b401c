"""What a project looks like at a glance: what needs a person now, and what changed last."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from clewline.flow.runs import with_live_status
from clewline.model.doctor import key_findings
from clewline.project import Project
from clewline.serve.doctor import finding_text
from clewline.serve.log.reader import latest_predictions
from clewline.serve.metrics.live_metrics import ServerCounts
from clewline.store.records import Alias, LiveRevision, ModelVersion, Revision, Run
from clewline.store.store import Store

CERTIFICATE_S = 21 * 86_400.0
"""A certificate that ends sooner needs a person."""
DISK_SHARE, DISK_BYTES = 0.05, 1 << 30
"""A disk with less room, as a share of it or in bytes, needs a person."""
RUNS_S = 14 * 86_400.0
"""A run that failed longer ago needs nobody now."""
RUNS = 500
"""Newest runs that are looked at."""
PREDICTIONS = 200
"""Newest predictions that are looked at."""

AttentionCode = Literal[
    "failed_endpoint",
    "missing_workers",
    "ending_certificate",
    "full_disk",
    "failed_run",
    "interrupted_run",
    "finding",
]


class Attention(msgspec.Struct, frozen=True):
    """A thing that needs a person now. Sentences for people are made of code and values."""

    code: AttentionCode
    values: dict[str, Any]
    time: float | None = None  # since when, seconds since the epoch


class RecentChange(msgspec.Struct, frozen=True):
    """Something that was made or moved."""

    time: float
    what: Literal["ran", "registered", "promoted", "applied", "live"]
    kind: str  # of the record, as in `store.ref.RecordRef`
    ref: str
    text: str = ""  # its pipeline and status, or the alias


class FlaggedShare(msgspec.Struct, frozen=True):
    """How many of the newest predictions of an endpoint have a flag."""

    flagged: int
    rows: int


def find_attention(
    project: Project, store: Store, counts: ServerCounts | None, now_s: float | None = None
) -> list[Attention]:
    """
    Find what needs a person now, the most urgent first.

    Args:
        project: Where to look.
        store: Its store, opened for reading.
        counts: What its server counted; None if no server answers.
        now_s: The present time, seconds since the epoch.
    """
    now = time.time() if now_s is None else now_s
    found = list(_server_attention(store, counts, now)) if counts is not None else []
    found += _disk_attention(project.store_root)
    found += _run_attention(store, now)
    for finding in key_findings(project):  # all others take `clewline doctor` longer
        if not finding.harmless:
            title, what, fix = finding_text(finding)
            found.append(Attention("finding", {"title": title, "what": what, "fix": fix}))
    return found


def _server_attention(store: Store, counts: ServerCounts, now: float) -> Iterator[Attention]:
    failed = [name for name, each in counts.endpoints.items() if each.is_ready is False]
    for name in sorted(failed):
        live = store.catalog.get(LiveRevision, name)
        if live is not None and not live.unloaded:
            yield Attention("failed_endpoint", {"revision": live.ref}, live.moved)
    if counts.workers_ready < counts.workers:
        values = {"ready": counts.workers_ready, "workers": counts.workers}
        yield Attention("missing_workers", values)
    ends = counts.certificate_ends
    if ends is not None and ends - now < CERTIFICATE_S:
        yield Attention("ending_certificate", {"ends": ends, "left_s": ends - now})


def _disk_attention(root: Path) -> Iterator[Attention]:
    usage = shutil.disk_usage(root)
    if usage.free < DISK_BYTES or usage.free < DISK_SHARE * usage.total:
        values = {"path": str(root), "free_bytes": usage.free, "total_bytes": usage.total}
        yield Attention("full_disk", values)


def _run_attention(store: Store, now: float) -> Iterator[Attention]:
    """Yield the newest run of each pipeline if it did not end well."""
    seen: set[str] = set()
    for run in store.catalog.find(Run, order="-started", limit=RUNS):
        if run.pipeline in seen:
            continue
        seen.add(run.pipeline)
        live = with_live_status(store, run)
        if live.status not in ("failed", "interrupted") or now - run.started > RUNS_S:
            continue
        values = {"run": run.id, "pipeline": run.pipeline, "error": run.error or {}}
        code: AttentionCode = "failed_run" if live.status == "failed" else "interrupted_run"
        yield Attention(code, values, run.ended or run.started)


def recent_changes(store: Store, limit: int = 12) -> list[RecentChange]:
    """Return what was made or moved last, newest first."""
    records = store.catalog
    found = [
        RecentChange(run.started, "ran", "run", run.id, f"{run.pipeline}, {run.status}")
        for run in (
            with_live_status(store, run) for run in records.find(Run, order="-started", limit=limit)
        )
    ]
    found += [
        RecentChange(version.created, "registered", "model", version.ref)
        for version in records.find(ModelVersion, order="-created", limit=limit)
    ]
    found += [
        RecentChange(alias.moved, "promoted", "model", f"{alias.name}@{alias.number}", alias.alias)
        for alias in records.find(Alias, order="-moved", limit=limit)
    ]
    revisions = records.find(Revision, order="-created", limit=limit)
    found += [RecentChange(each.created, "applied", "revision", each.ref) for each in revisions]
    applied = {each.ref: each.created for each in revisions}
    found += [
        RecentChange(live.moved, "live", "revision", live.ref)
        for live in records.find(LiveRevision, order="-moved", limit=limit)
        if live.moved - applied.get(live.ref, 0.0) > 1.0  # otherwise both are one deed
    ]
    return sorted(found, key=lambda change: change.time, reverse=True)[:limit]


def flagged_shares(log: Path, look_at: int = PREDICTIONS) -> Mapping[str, FlaggedShare]:
    """Count the flagged among the newest predictions of all endpoints."""
    rows: dict[str, int] = {}
    flagged: dict[str, int] = {}
    for logged in latest_predictions(log, limit=look_at, look_at=look_at).items:
        name = logged.batch.endpoint
        rows[name] = rows.get(name, 0) + 1
        answer = msgspec.json.decode(logged.answer, type=_Answer)
        flagged[name] = flagged.get(name, 0) + bool(answer.flags)
    return {name: FlaggedShare(flagged[name], count) for name, count in rows.items()}


class _Answer(msgspec.Struct):
    flags: list[msgspec.Raw] = []
