"""What a person types, and the record that is meant."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from clewline.errors import NotFound, UsageError
from clewline.store.digest import digest_file
from clewline.store.reader import CatalogReader
from clewline.store.records import (
    Alias,
    Artifact,
    Edge,
    LiveRevision,
    ModelVersion,
    Revision,
    Run,
    SeenFile,
    StepRun,
)

RefKind = Literal["run", "step", "artifact", "code", "model", "revision"]

RUN_CHARACTERS = 4
DIGEST_CHARACTERS = 8
_HEX = re.compile(r"[0-9a-f]+")
_NEARBY = 500


class Ref(msgspec.Struct, frozen=True):
    """A record, found: its kind and its id as text, such as `model` and `income@3`."""

    kind: RefKind
    id: str
    note: str | None = None  # what must be said of how it was found


def resolve(
    reader: CatalogReader, text: str, *, prefer: Literal["endpoint", "model"] = "endpoint"
) -> Ref:
    """
    Find the record that a text means.

    Args:
        reader: The catalog.
        text: A run id or step run id, a digest (any unique beginning of them), `NAME@3`,
            `NAME@ALIAS`, `ENDPOINT#12`, the name of an endpoint (its live revision) or of
            a model (its newest version), or the path of a file or folder that was an input.
        prefer: Which is meant when an endpoint and a model have the same name.

    Raises:
        NotFound: Nothing is meant; the message names the nearest.
        UsageError: More than one run or digest begins so.
    """
    named = (_endpoint, _model) if prefer == "endpoint" else (_model, _endpoint)
    ways: tuple[Callable[[CatalogReader, str], Ref | None], ...] = (
        _revision,
        _version,
        _step,
        *named,
        _run,
        _digest,
        _path,
    )
    for way in ways:
        found = way(reader, text)
        if found is not None:
            return found
    raise _nothing(reader, text)


def number_in(text: str) -> int | None:
    """Read a version or revision number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _revision(reader: CatalogReader, text: str) -> Ref | None:
    endpoint, mark, rest = text.rpartition("#")
    number = number_in(rest)
    if not mark or number is None or reader.get(Revision, endpoint, number) is None:
        return None
    return Ref("revision", f"{endpoint}#{number}")


def _version(reader: CatalogReader, text: str) -> Ref | None:
    name, mark, rest = text.rpartition("@")
    if not mark:
        return None
    number = number_in(rest)
    if number is None:
        alias = reader.get(Alias, name, rest)
        number = alias.number if alias else None
    if number is None or reader.get(ModelVersion, name, number) is None:
        return None
    return Ref("model", f"{name}@{number}")


def _step(reader: CatalogReader, text: str) -> Ref | None:
    run, mark, rest = text.partition("/")
    if not mark or not _is_beginning(run, RUN_CHARACTERS):
        return None
    if reader.get(StepRun, text) is not None:
        return Ref("step", text)
    steps = [
        step.id
        for each in reader.find(Run, prefix={"id": run}, limit=None)
        for step in reader.find(StepRun, run=each.id, limit=None)
        if step.id.partition("/")[2].startswith(rest)
    ]
    found = _only(text, steps, "step runs")
    return Ref("step", found) if found else None


def _endpoint(reader: CatalogReader, text: str) -> Ref | None:
    live = reader.get(LiveRevision, text)
    return Ref("revision", f"{text}#{live.number}") if live else None


def _model(reader: CatalogReader, text: str) -> Ref | None:
    newest = reader.find(ModelVersion, name=text, order="-number", limit=1)
    return Ref("model", f"{text}@{newest[0].number}") if newest else None


def _run(reader: CatalogReader, text: str) -> Ref | None:
    if not _is_beginning(text, RUN_CHARACTERS):
        return None
    runs = [run.id for run in reader.find(Run, prefix={"id": text}, limit=5)]
    found = _only(text, runs, "runs")
    return Ref("run", found) if found else None


def _digest(reader: CatalogReader, text: str) -> Ref | None:
    if not _is_beginning(text, DIGEST_CHARACTERS):
        return None
    found: set[Ref] = {
        Ref("artifact", artifact.digest)
        for field in ("digest", "blob")
        for artifact in reader.find(Artifact, prefix={field: text}, limit=5)
    }
    found.update(
        Ref("code", run.snapshot)
        for run in reader.find(Run, prefix={"snapshot": text}, limit=5)
        if run.snapshot
    )
    found.update(
        Ref("code", edge.source.removeprefix("code:"))
        for edge in reader.find(Edge, prefix={"source": f"code:{text}"}, limit=5)
    )
    found.update(
        Ref("model", f"{version.name}@{version.number}")
        for version in reader.find(ModelVersion, prefix={"package": text}, limit=5)
    )
    ids = {ref.id: ref for ref in found}
    only = _only(text, sorted(ids), "digests")
    return ids[only] if only else None


def _path(reader: CatalogReader, text: str) -> Ref | None:
    path = Path(os.path.normpath(Path.cwd() / Path(text).expanduser()))
    if path.is_file():
        content = reader.find(Artifact, blob=digest_file(path), limit=1)
        if content:
            return Ref("artifact", content[0].digest)
    read, seen = _nearest(reader, path)
    if not seen:
        return None
    note = f"{read} as the newest run read it"
    if read.is_file():
        note += "; the file has changed since"
    if len(seen) > 1:
        note += f"; earlier runs read {len(seen) - 1} other contents there"
    return Ref("artifact", seen[0], note)


def _nearest(reader: CatalogReader, path: Path) -> tuple[Path, list[str]]:
    """A path that runs have read, or else the innermost folder around it that they have read."""
    for each in (path, *path.parents) if path.exists() else (path,):
        if seen := list(_seen(reader, each)):
            return each, seen
    return path, []


def _seen(reader: CatalogReader, path: Path) -> Iterator[str]:
    """The contents that runs read at a path, newest first."""
    started: dict[str, float] = {}
    for seen in reader.find(SeenFile, path=str(path), limit=None):
        run = reader.get(Run, seen.run)
        started[seen.digest] = max(started.get(seen.digest, 0.0), run.started if run else 0.0)
    yield from sorted(started, key=lambda digest: -started[digest])


def _is_beginning(text: str, least: int) -> bool:
    return len(text) >= least and _HEX.fullmatch(text) is not None


def _only(text: str, found: Sequence[str], what: str) -> str | None:
    if len(found) > 1:
        raise UsageError(
            f"{text!r} is the beginning of several {what}: {', '.join(found[:5])}.",
            "Type more of it.",
        )
    return found[0] if found else None


def _nothing(reader: CatalogReader, text: str) -> NotFound:
    near = difflib.get_close_matches(text, _names(reader), n=3, cutoff=0.5)
    if near:
        return NotFound(f"Nothing here is called {text!r}.", f"Nearest: {', '.join(near)}.")
    if Path(text).exists():
        return NotFound(
            f"No run of this project has read {text!r}.",
            "A file is recorded when a step takes it through a parameter annotated `Path`.",
        )
    return NotFound(
        f"Nothing here is called {text!r}.",
        "`clewline runs list`, `clewline models list` and `clewline endpoints list` show what is.",
    )


def _names(reader: CatalogReader) -> list[str]:
    names: list[str] = []
    for version in reader.find(ModelVersion, order="-created", limit=_NEARBY):
        names += (version.name, f"{version.name}@{version.number}")
    for alias in reader.find(Alias, limit=_NEARBY):
        names.append(f"{alias.name}@{alias.alias}")
    for revision in reader.find(Revision, order="-created", limit=_NEARBY):
        names += (revision.endpoint, f"{revision.endpoint}#{revision.number}")
    for run in reader.find(Run, order="-started", limit=_NEARBY):
        names.append(run.id)
    return sorted(set(names))
