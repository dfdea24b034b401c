"""`clewline models`: list, show, diff, verify and promote model versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from clewline.cli import model_tables as tables
from clewline.cli.models_import import import_
from clewline.cli.output import emit, print_message
from clewline.cli.parameters import Limit, Offset
from clewline.errors import GateRefused
from clewline.model.registry import Registry
from clewline.project import find
from clewline.store.records import Run
from clewline.store.store import Store

if TYPE_CHECKING:
    from clewline.model.package import Package

app = App(name="models", help="List, show, compare, import, verify and promote model versions.")


@app.command(name="list")
def list_(name: str | None = None, /, *, limit: Limit = 20, offset: Offset = 0) -> None:
    """
    List versions, newest first.

    Parameters
    ----------
    name
        Of one model; all by default.
    limit
        How many at most.
    offset
        How many to leave out first.
    """
    with _registry() as registry:
        found = registry.list(name, limit=limit, offset=offset)
        aliases = _aliases(registry)
    rows = [msgspec.to_builtins(item) | {"aliases": aliases.get(item.ref, [])} for item in found]
    emit(rows, lambda _: tables.versions(found, aliases, limit, offset))


@app.command
def show(ref: str, /) -> None:
    """
    Show a version: what it answers, how good it is, how it is served, where it came from.

    Parameters
    ----------
    ref
        income@3, income@champion, or income for the newest.
    """
    with _registry() as registry:
        package = registry.open(ref)
        aliases = _aliases(registry).get(package.manifest.ref, [])
        run = _run(registry, package)
    data = {
        "package": package.digest,
        "aliases": aliases,
        "manifest": package.manifest,
        "signature": package.signature,
        "equality": msgspec.Raw(package.files["equality.json"]),
    }
    emit(data, lambda _: tables.version(package, aliases, run))


app.command(import_, name="import")


@app.command
def diff(left: str, right: str, /) -> None:
    """
    Show what differs between two versions.

    Parameters
    ----------
    left
        A version: income@2.
    right
        Another: income@3.
    """
    from clewline.model.compare import compare_versions

    with _registry() as registry:
        one, two = registry.open(left), registry.open(right)
        found = compare_versions(one, two, _run(registry, one), _run(registry, two))
    emit(found, lambda _: tables.difference(one.manifest.ref, two.manifest.ref, found))


@app.command
def verify(ref: str | None = None, /) -> None:
    """
    Read every byte of the packages, and check seals, the registry's chain and its heads in Git.

    Parameters
    ----------
    ref
        One version; all by default.
    """
    from clewline.model.verify import verify as check

    with _registry() as registry:
        found = check(registry, ref)
    emit(msgspec.to_builtins(found) | {"sound": found.sound}, lambda _: tables.verification(found))
    if not found.sound:
        raise SystemExit(1)


@app.command
def promote(ref: str, alias: str, /, *, force: str | None = None) -> None:
    """
    Move an alias to a version, if gate.yaml lets it pass.

    Parameters
    ----------
    ref
        The version: income@3.
    alias
        Such as champion.
    force
        The reason to move it though the gate refuses; recorded in the registry's chain.
    """
    from clewline.model.promote import promote as move

    with _registry(write=True) as registry:
        try:
            done = move(registry, ref, alias, force=force)
        except GateRefused as refusal:
            verdicts = list(refusal.verdicts)
            emit(
                {"moved": False, "verdicts": verdicts},
                lambda _: tables.gate(verdicts, f"{ref} may not be {alias}: gate.yaml refuses it."),
            )
            print_message(f"  {refusal.fix}")
            raise SystemExit(1) from None
    emit(done, tables.promotion)


@contextmanager
def _registry(*, write: bool = False) -> Iterator[Registry]:
    project = find()
    with Store.open(project.store_root, write=write) as store:
        yield Registry(project, store)


def _aliases(registry: Registry) -> dict[str, list[str]]:
    held: dict[str, list[str]] = {}
    for alias in registry.aliases():
        held.setdefault(f"{alias.name}@{alias.number}", []).append(alias.alias)
    return held


def _run(registry: Registry, package: Package) -> Run | None:
    run = package.manifest.run
    return registry.store.catalog.get(Run, run) if run else None
