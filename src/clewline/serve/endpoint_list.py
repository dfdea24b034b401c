"""Endpoints as a list: those that have a file, and those that are live."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from clewline.project import Project
from clewline.serve.endpoint_file import endpoint_names
from clewline.store.records import LiveRevision, Revision
from clewline.store.ref import RecordSource


class EndpointRow(msgspec.Struct, frozen=True):
    """An endpoint in a list."""

    endpoint: str
    revision: str | None  # the live one
    models: list[str]
    file: bool  # whether endpoints/NAME.yaml is there
    state: str
    since: float | None


def listed_endpoints(project: Project, records: RecordSource) -> list[str]:
    """Return the names of all endpoints that have a file or are live, sorted."""
    live = [found.endpoint for found in records.find(LiveRevision, limit=None)]
    return sorted({*endpoint_names(project), *live})


def endpoint_rows(
    project: Project, records: RecordSource, names: Sequence[str]
) -> list[EndpointRow]:
    """Say of each endpoint whether it is live, since when, and with which models."""
    files = set(endpoint_names(project))
    return [_row(records, name, name in files) for name in names]


def _row(records: RecordSource, name: str, has_file: bool) -> EndpointRow:
    live = records.get(LiveRevision, name)
    if live is None:
        return EndpointRow(name, None, [], has_file, "not applied", None)
    revision = records.get(Revision, name, live.number)
    assert revision is not None, "the catalog keeps the live revision"
    state = "unloaded" if live.unloaded else "live" if has_file else "live, its file is gone"
    models = list(revision.models.values())
    return EndpointRow(name, revision.ref, models, has_file, state, live.moved)
