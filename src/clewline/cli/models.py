"""`clewline models`: list, show, compare, import, verify and promote model versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import App, Parameter

from clewline.cli.output import emit, print_message, write_page
from clewline.cli.parameters import Limit, Offset, parse_size
from clewline.errors import GateRefused, InvalidInput, NotFound, NotSupported, UsageError
from clewline.model.registry import Registry
from clewline.project import find
from clewline.store.records import Run
from clewline.store.store import Store

if TYPE_CHECKING:
    from clewline.model.package import Package
    from clewline.model.reported_version import PairedDifference

app = App(name="models", help="List, show, compare, import, verify and promote model versions.")


@app.command(name="list")
def list_(name: str | None = None, /, *, limit: Limit = 20, offset: Offset = 0) -> None:
    """
    List versions, newest first.

    Parameters
    ----------
    name
        List the versions of this model; all models by default.
    limit
        Maximum number of versions.
    offset
        Number of versions to skip, newest first.
    """
    from clewline.cli.model_tables import print_versions

    with _open_registry() as registry:
        found = registry.list(name, limit=limit, offset=offset)
        aliases = _aliases(registry)
    rows = [msgspec.to_builtins(item) | {"aliases": aliases.get(item.ref, [])} for item in found]
    emit(rows, lambda _: print_versions(found, aliases, limit, offset))


@app.command
def show(ref: str, /) -> None:
    """
    Show a version: output, metrics, served form, data and code.

    Parameters
    ----------
    ref
        The version: income@3, income@champion, or income for the newest.
    """
    from clewline.cli.model_tables import print_version
    from clewline.model.evaluation_record import read_evaluation

    with _open_registry() as registry:
        package = registry.open(ref)
        aliases = _aliases(registry).get(package.manifest.ref, [])
        run = _find_run(registry, package)
    data = {
        "package": package.digest,
        "aliases": aliases,
        "manifest": package.manifest,
        "signature": package.signature,
        "equality": msgspec.Raw(package.files["equality.json"]),
        "evaluation": read_evaluation(package),
    }
    emit(data, lambda _: print_version(package, aliases, run))


@app.command
def report(ref: str, /, *, against: str | None = None, out: Path | None = None) -> None:
    """
    Report how good a version is, where not, and how sure that is.

    Without --out the metrics and the verdict are printed; the page has every section.

    Parameters
    ----------
    ref
        The version: income@3, income@champion, or income for the newest.
    against
        Another version to compare it with.
    out
        Write a page to this file (HTML).
    """
    from clewline.cli.model_tables import print_report
    from clewline.html.model_report import write_model_report
    from clewline.model.reported_version import compare_reported, read_version
    from clewline.version import __version__

    with _open_registry() as registry:
        version = read_version(registry, ref)
        other = None if against is None else read_version(registry, against)
        differences: list[PairedDifference] = []
        unpaired = ""
        if other is not None:
            differences, unpaired = compare_reported(registry, version, other)
    data = {
        "model": version.ref,
        "evaluation": version.report,
        "against": None if other is None else other.ref,
        "differences": [each._asdict() for each in differences],
        "not_paired": unpaired or None,
    }
    emit(data, lambda _: print_report(version, other, differences))
    if out is not None:
        page = write_model_report(
            version, __version__, against=other, differences=differences, unpaired=unpaired
        )
        write_page(out, page)


@app.command(name="import")
def import_(
    source: str,
    /,
    *,
    name: Annotated[str, Parameter(name="--name")],
    digest: str | None = None,
    signature: Path | None = None,
    sample: Path | None = None,
    train: Path | None = None,
    test: Path | None = None,
    target: str | None = None,
    max_size: str = "1GiB",
) -> None:
    """
    Register a model file: ONNX, or a booster in its own format.

    The file must have the digest that --digest pins. An address without --digest is refused;
    the error shows the digest of the file, so that you can compare and pin it.

    Parameters
    ----------
    source
        A path, hf:OWNER/REPO/PATH/FILE[@REVISION], or https://HOST/FILE.
    name
        The name of the model.
    digest
        The digest of the file: sha256: and 64 hex characters.
    signature
        A JSON or YAML file with fields and output, as in a package's signature.json.
    sample
        Input rows (CSV or Parquet) that give the kinds, levels and bounds of fields.
    train
        The training table (CSV or Parquet): replaces --sample, adds the reference profile.
    test
        Rows to evaluate the model on; it must not have seen them.
    target
        The column that the model predicts.
    max_size
        The largest file to accept.
    """
    from clewline.data.table_files import read_table
    from clewline.hub.download import DownloadLimits
    from clewline.hub.import_model import ModelImport, import_model

    if train is not None and sample is not None:
        raise UsageError("--train and --sample are both given.", "Leave --sample out.")
    tables: dict[str, Any] = {} if target is None else {"target": target}
    tables |= {
        key: read_table(path)
        for key, path in (("train", train), ("test", test))
        if path is not None
    }
    project = find()
    wanted = ModelImport(
        source=source, name=name, digest=digest, signature=signature, sample=sample, tables=tables
    )
    limits = DownloadLimits(size_bytes=parse_size(max_size))
    with Store.open(project.store_root) as store:
        registered = import_model(project, store, wanted, limits)
    emit(msgspec.to_builtins(registered), lambda _: print_message(f"registered {registered.ref}"))


@app.command
def diff(left: str, right: str, /, *, test: Path | None = None) -> None:
    """
    Compare two versions: what differs, and how well each answers.

    Parameters
    ----------
    left
        One version, such as income@2.
    right
        The other, such as income@3.
    test
        Rows with the target (CSV or Parquet); by default the test table that both share.
    """
    from clewline.cli.model_tables import print_differences, print_paired
    from clewline.data.table_files import read_table
    from clewline.model.paired_comparison import compare_on_test_rows
    from clewline.model.version_differences import compare_versions

    rows, name = (None, "") if test is None else (read_table(test), str(test))
    paired, problem = None, None
    with _open_registry() as registry:
        one, two = registry.open(left), registry.open(right)
        found = compare_versions(one, two, _find_run(registry, one), _find_run(registry, two))
        if one.digest != two.digest:
            try:
                paired = compare_on_test_rows(registry.store, one, two, rows, name=name)
            except (InvalidInput, NotFound, NotSupported) as error:
                if test is not None:
                    raise
                problem = error

    def render(_: object) -> None:
        print_differences(one.manifest.ref, two.manifest.ref, found)
        if paired is not None:
            print_paired(paired)
        if problem is not None:
            print_message(f"The versions were not compared on the same rows: {problem.message}")
            print_message(f"  {problem.fix}" if problem.fix else "")

    not_compared = None if problem is None else problem.message
    emit({"differences": found, "paired": paired, "not_compared": not_compared}, render)


@app.command
def verify(ref: str | None = None, /) -> None:
    """
    Verify packages, seals, and the registry's chain and Git heads.

    Parameters
    ----------
    ref
        Verify this version; all versions by default.
    """
    from clewline.cli.model_tables import print_verification
    from clewline.model.verify import verify as verify_registry

    with _open_registry() as registry:
        found = verify_registry(registry, ref)
    emit(msgspec.to_builtins(found) | {"sound": found.sound}, lambda _: print_verification(found))
    if not found.sound:
        raise SystemExit(1)


@app.command
def promote(
    ref: str, alias: str, /, *, reason: str | None = None, force: str | None = None
) -> None:
    """
    Move an alias to a version that passes gate.yaml.

    Parameters
    ----------
    ref
        The version, such as income@3.
    alias
        The alias, such as champion.
    reason
        Why; the registry's chain records it.
    force
        Move the alias even if the gate refuses; the registry's chain records this reason.
    """
    from clewline.cli.model_tables import print_gate, print_promotion
    from clewline.model.promote import promote as move_alias

    with _open_registry(write=True) as registry:
        try:
            done = move_alias(registry, ref, alias, force=force, reason=reason)
        except GateRefused as refusal:
            verdicts = list(refusal.verdicts)
            title = f"{ref} may not be {alias}: gate.yaml refuses it."
            emit({"moved": False, "verdicts": verdicts}, lambda _: print_gate(verdicts, title))
            print_message(f"  {refusal.fix}")
            raise SystemExit(1) from None
    emit(done, print_promotion)


@contextmanager
def _open_registry(*, write: bool = False) -> Iterator[Registry]:
    project = find()
    with Store.open(project.store_root, write=write) as store:
        yield Registry(project, store)


def _aliases(registry: Registry) -> dict[str, list[str]]:
    """Return the aliases of each version."""
    found: dict[str, list[str]] = {}
    for alias in registry.aliases():
        found.setdefault(f"{alias.name}@{alias.number}", []).append(alias.alias)
    return found


def _find_run(registry: Registry, package: Package) -> Run | None:
    run = package.manifest.run
    return registry.store.catalog.get(Run, run) if run else None
