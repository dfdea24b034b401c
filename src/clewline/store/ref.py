"""
References: the texts by which people name records, and the records that they mean.

    income@3         version 3 of the model income
    income@champion  the version of income that holds the alias champion
    income#12        revision 12 of the endpoint income
    income           the live revision of an endpoint, or the newest version of a model
    4f9a2c81d0be     a run
    4f9a2c81d0be/03  a step run
    9f0c62d1e2ab     a digest of an artifact, a blob, a code snapshot or a package, or the id of
                     an explanation
    data/adult.csv   a file or folder that a run has read

Any unique beginning of an id (4 characters) or a digest (8 characters) is enough.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

import msgspec

from clewline.errors import NotFound, UsageError, did_you_mean
from clewline.store.digest import digest_file
from clewline.store.records import (
    Alias,
    Artifact,
    Edge,
    ExplanationRecord,
    LiveRevision,
    ModelVersion,
    Revision,
    Run,
    SeenFile,
    StepRun,
)
from clewline.store.rows import R

RefKind = Literal["run", "step", "artifact", "code", "model", "revision", "explanation"]

RUN_CHARACTERS = 4
DIGEST_CHARACTERS = 8

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_MARKED = re.compile(r"(?P<name>[^@#]+)(?P<mark>[@#])(?P<rest>.+)", re.DOTALL)
_HEX = re.compile(r"[0-9a-f]+")
_MOST_NAMES = 500  # of each kind, among which the nearest one is looked for


class RecordSource(Protocol):
    """Reads records: a catalog, its reader or a transaction."""

    def get(self, kind: type[R], *key: Any) -> R | None:
        """Get the record with these keys; None when there is none."""

    def find(self, kind: type[R], **how: Any) -> list[R]:
        """Find records; see `CatalogReader.find`."""


class Ref(msgspec.Struct, frozen=True):
    """A reference by name, taken apart; nothing is looked up."""

    name: str
    mark: Literal["", "@", "#"] = ""
    number: int | None = None
    alias: str | None = None  # what follows the mark, where it is not a number

    @classmethod
    def parse(cls, text: str) -> Ref:
        """
        Take a reference apart: `NAME`, `NAME@3`, `NAME@ALIAS` or `NAME#12`.

        Raises:
            UsageError: The name, or what should follow the mark, is missing.

        >>> Ref.parse("income@3")
        Ref(name='income', mark='@', number=3, alias=None)
        >>> Ref.parse("income@champion").alias
        'champion'
        """
        marked = _MARKED.fullmatch(text)
        if marked is None:
            if not text or "@" in text or "#" in text:
                raise UsageError(
                    f"{text!r} is not a reference.",
                    "Write NAME@NUMBER or NAME@ALIAS for a model version, "
                    "ENDPOINT#NUMBER for a revision.",
                )
            return cls(text)
        name, mark, rest = marked["name"], marked["mark"], marked["rest"]
        # 15 digits: a longer number belongs to no record, and SQLite cannot be asked for it.
        is_number = rest.isascii() and rest.isdecimal() and len(rest) <= 15
        return cls(
            name,
            "@" if mark == "@" else "#",
            int(rest) if is_number else None,
            None if is_number else rest,
        )

    def __str__(self) -> str:
        which = self.number if self.number is not None else self.alias or ""
        return f"{self.name}{self.mark}{which}"


class RecordRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record that was found: its kind, and its id such as `income@3`."""

    kind: RefKind
    id: str
    read: ReadPath | None = None  # how a path led to it


class ReadPath(msgspec.Struct, frozen=True):
    """A path that runs have read; the newest content is meant."""

    path: str
    changed: bool  # the file has other content now
    earlier: int  # number of other contents that earlier runs read there


def require_model_name(name: str) -> None:
    """
    Check that a model can have this name.

    Raises:
        UsageError: It holds something besides letters, digits, `_` and `-`, or is too long.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a model.",
            "Use up to 64 letters, digits, '-' and '_'; begin with a letter or digit.",
        )


def require_alias_name(alias: str) -> None:
    """
    Check that an alias can have this name; a number would mean a version.

    Raises:
        UsageError: It does not begin with a letter, holds something besides letters, digits,
            `_` and `-`, or is too long.
    """
    if not _ALIAS.fullmatch(alias):
        raise UsageError(
            f"{alias!r} cannot be an alias.",
            "Use up to 64 letters, digits, '-' and '_'; begin with a letter, as in champion.",
        )


def find_version(records: RecordSource, text: str) -> ModelVersion:
    """
    Find a model version: `income@3`, `income@champion`, or `income` for the newest.

    Raises:
        UsageError: The text is not a reference to a version.
        NotFound: There is no such model, version or alias; the error names the nearest.
    """
    ref = Ref.parse(text)
    if ref.mark == "#":
        raise UsageError(
            f"{text!r} refers to a revision of an endpoint, not to a model version.",
            "Write NAME@NUMBER or NAME@ALIAS.",
        )
    found = _version(records, ref)
    return _refuse_version(records, ref) if found is None else found


def find_revision(records: RecordSource, text: str) -> Revision:
    """
    Find a revision of an endpoint: `income#12`, or `income` for the live one.

    Raises:
        UsageError: The text is not a reference to a revision.
        NotFound: There is no such endpoint or revision; the error names the nearest.
    """
    ref = Ref.parse(text)
    if ref.mark == "@":
        raise UsageError(
            f"{text!r} refers to a model version, not to an endpoint.",
            "Write ENDPOINT or ENDPOINT#NUMBER.",
        )
    found = _revision(records, ref)
    return _refuse_revision(records, ref) if found is None else found


def find_run(records: RecordSource, text: str) -> Run:
    """
    Find a run by its id, or by a beginning that no other run shares.

    Raises:
        UsageError: Several runs begin so.
        NotFound: No run begins so.
    """
    exact = records.get(Run, text)
    found = exact or _run(records, text)
    if found is None:
        raise NotFound(
            f"There is no run {text!r}.",
            f"`clewline runs list` lists them; {RUN_CHARACTERS} characters of an id are enough.",
        )
    return found


def find_artifact(records: RecordSource, text: str) -> Artifact:
    """
    Find an artifact by its digest, or by a beginning that no other artifact shares.

    Raises:
        UsageError: Several artifacts begin so.
        NotFound: No artifact begins so.
    """
    found: list[Artifact] = []
    if _is_beginning(text, DIGEST_CHARACTERS):
        found = records.find(Artifact, prefix={"digest": text}, limit=2)
    if not found:
        raise NotFound(
            f"No artifact has the digest {text[:80]!r}.",
            "`clewline runs show RUN` names the artifacts of each step.",
        )
    _require_one(text, [each.digest for each in found], "artifacts")
    return found[0]


def resolve(
    records: RecordSource, text: str, *, prefer: Literal["endpoint", "model"] = "endpoint"
) -> RecordRef:
    """
    Find the record that a reference of any kind means.

    Args:
        records: The catalog.
        text: Any reference listed at the top of this module.
        prefer: What a name means that an endpoint and a model share.

    Raises:
        UsageError: Several runs, step runs or digests begin so.
        NotFound: The reference means nothing; the error names the nearest.
    """
    try:
        ref = Ref.parse(text)
    except UsageError:  # a path may hold a mark
        ref = Ref("")
    version = _version(records, ref) if ref.mark != "#" else None
    revision = _revision(records, ref) if ref.mark != "@" else None
    if revision is not None and (version is None or prefer == "endpoint"):
        return RecordRef("revision", revision.ref)
    if version is not None:
        return RecordRef("model", version.ref)
    if (step := _step(records, text)) is not None:
        return RecordRef("step", step)
    if (run := _run(records, text)) is not None:
        return RecordRef("run", run.id)
    found = _digest(records, text) or _path(records, text)
    if found is not None:
        return found
    if ref.mark == "@":
        _refuse_version(records, ref)
    if ref.mark == "#":
        _refuse_revision(records, ref)
    if Path(text).exists():
        raise NotFound(
            f"No run of this project has read {text!r}.",
            "A file is recorded when a step takes it through a parameter annotated `Path`.",
        )
    raise NotFound(
        f"Nothing in this project is called {text!r}.",
        did_you_mean(
            text,
            _known_names(records),
            "`clewline runs list`, `clewline models list` and `clewline endpoints list` "
            "list the known names.",
        ),
    )


def _version(records: RecordSource, ref: Ref) -> ModelVersion | None:
    if not ref.mark:
        newest = records.find(ModelVersion, name=ref.name, order="-number", limit=1)
        return newest[0] if newest else None
    number = ref.number
    if ref.alias is not None:
        alias = records.get(Alias, ref.name, ref.alias)
        number = alias.number if alias else None
    return None if number is None else records.get(ModelVersion, ref.name, number)


def _revision(records: RecordSource, ref: Ref) -> Revision | None:
    number = ref.number
    if not ref.mark:
        live = records.get(LiveRevision, ref.name)
        number = live.number if live else None
    return None if number is None else records.get(Revision, ref.name, number)


def _refuse_version(records: RecordSource, ref: Ref) -> NoReturn:
    newest = _version(records, Ref(ref.name))
    if newest is None:
        names = {version.name for version in records.find(ModelVersion, limit=1000)}
        known = [str(msgspec.structs.replace(ref, name=name)) for name in names]
        hint = did_you_mean(ref, known, did_you_mean(ref.name, names) if names else None)
        raise NotFound(f"There is no model {ref.name!r}.", hint)
    if ref.alias is None or ref.alias.isdecimal():
        raise NotFound(f"There is no model version {ref}.", f"The newest is {newest.ref}.")
    aliases = [alias.alias for alias in records.find(Alias, name=ref.name, limit=None)]
    near = did_you_mean(ref, [f"{ref.name}@{alias}" for alias in aliases], "")
    held = f"Aliases of {ref.name}: {', '.join(aliases)}." if aliases else ""
    create = f"`clewline models promote {newest.ref} {ref.alias}` creates the alias."
    raise NotFound(f"There is no alias {ref}.", " ".join(filter(None, (near, held, create))))


def _refuse_revision(records: RecordSource, ref: Ref) -> NoReturn:
    live = records.get(LiveRevision, ref.name)
    if live is None:
        known = [each.endpoint for each in records.find(LiveRevision, limit=None)]
        hint = did_you_mean(ref.name, known, "`clewline endpoints apply` creates it.")
        raise NotFound(f"There is no endpoint {ref.name!r}.", hint)
    raise NotFound(
        f"There is no revision {ref}; {live.ref} is live.",
        f"`clewline endpoints show {ref.name}` lists its revisions.",
    )


def _step(records: RecordSource, text: str) -> str | None:
    run, mark, rest = text.partition("/")
    if not mark or not _is_beginning(run, RUN_CHARACTERS):
        return None
    if records.get(StepRun, text) is not None:
        return text
    steps = [
        step.id
        for each in records.find(Run, prefix={"id": run}, limit=None)
        for step in records.find(StepRun, run=each.id, limit=None)
        if step.label.startswith(rest)
    ]
    _require_one(text, steps, "step runs")
    return steps[0] if steps else None


def _run(records: RecordSource, text: str) -> Run | None:
    if not _is_beginning(text, RUN_CHARACTERS):
        return None
    runs = records.find(Run, prefix={"id": text}, limit=5)
    _require_one(text, [run.id for run in runs], "runs")
    return runs[0] if runs else None


def _digest(records: RecordSource, text: str) -> RecordRef | None:
    if not _is_beginning(text, DIGEST_CHARACTERS):
        return None
    found: dict[str, RecordRef] = {}
    for field in ("digest", "blob"):
        for artifact in records.find(Artifact, prefix={field: text}, limit=5):
            found[artifact.digest] = RecordRef("artifact", artifact.digest)
    codes = [run.snapshot for run in records.find(Run, prefix={"snapshot": text}, limit=5)]
    edges = records.find(Edge, prefix={"source": f"code:{text}"}, limit=5)
    for code in (*codes, *(edge.source.removeprefix("code:") for edge in edges)):
        if code:
            found[code] = RecordRef("code", code)
    for version in records.find(ModelVersion, prefix={"package": text}, limit=5):
        found[version.ref] = RecordRef("model", version.ref)
    for explanation in records.find(ExplanationRecord, prefix={"id": text}, limit=5):
        found[explanation.id] = RecordRef("explanation", explanation.id)
    _require_one(text, sorted(found), "digests")
    return next(iter(found.values()), None)


def _path(records: RecordSource, text: str) -> RecordRef | None:
    """Find a file by its content, or else the innermost path around it that runs have read."""
    path = Path(os.path.normpath(Path.cwd() / Path(text).expanduser()))
    if path.is_file():
        content = records.find(Artifact, blob=digest_file(path), limit=1)
        if content:
            return RecordRef("artifact", content[0].digest)
    for read in (path, *path.parents) if path.exists() else (path,):
        started: dict[str, float] = {}
        for seen in records.find(SeenFile, path=str(read), limit=None):
            run = records.get(Run, seen.run)
            started[seen.digest] = max(started.get(seen.digest, 0.0), run.started if run else 0.0)
        if started:
            how = ReadPath(str(read), changed=read.is_file(), earlier=len(started) - 1)
            return RecordRef("artifact", max(started, key=lambda digest: started[digest]), how)
    return None


def _is_beginning(text: str, least: int) -> bool:
    return len(text) >= least and _HEX.fullmatch(text) is not None


def _require_one(text: str, found: Sequence[str], what: str) -> None:
    if len(found) > 1:
        raise UsageError(
            f"{text!r} is the beginning of several {what}: {', '.join(found[:5])}.",
            "Type more of it.",
        )


def _known_names(records: RecordSource) -> list[str]:
    names: list[str] = []
    for version in records.find(ModelVersion, order="-created", limit=_MOST_NAMES):
        names += (version.name, version.ref)
    for alias in records.find(Alias, limit=_MOST_NAMES):
        names.append(f"{alias.name}@{alias.alias}")
    for revision in records.find(Revision, order="-created", limit=_MOST_NAMES):
        names += (revision.endpoint, revision.ref)
    names += (run.id for run in records.find(Run, order="-started", limit=_MOST_NAMES))
    return names
