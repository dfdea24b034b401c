"""A file from elsewhere becomes a version of a model here: once, and by its digest alone."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.errors import ClewlineError, IntegrityError, InvalidInput, NotFound
from clewline.formatting import format_size
from clewline.hub import address as addresses
from clewline.hub import file_cache, huggingface, input_files
from clewline.hub.address import Address
from clewline.hub.download import Fetched, declared_size, fetch, require_size
from clewline.hub.file_cache import CachedFile
from clewline.hub.web import DownloadLimits, HubRefused, open_url
from clewline.model import origin
from clewline.model.families.model_files import family_of_file
from clewline.model.origin import Origin
from clewline.model.registry import Registry
from clewline.project import Project
from clewline.store.digest import digest_bytes
from clewline.store.disk import disk_errors
from clewline.store.records import ModelVersion
from clewline.store.ref import require_model_name
from clewline.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

BOUNDS = DownloadLimits()


class ModelImport(msgspec.Struct, frozen=True, kw_only=True):
    """A model from elsewhere, and what describes it."""

    source: str  # hf:OWNER/REPO/FILE, https://…, or a path
    name: str  # of the model that it becomes
    digest: str | None = None  # sha256:…; an address needs one
    signature: Path | None = None  # JSON or YAML that states fields and output
    sample: Path | None = None  # CSV or Parquet with rows, without the target or with it
    tables: dict[str, Any] = {}  # train, test and target, for `register`


def import_model(
    project: Project, store: Store, wanted: ModelImport, bounds: DownloadLimits = BOUNDS
) -> ModelVersion:
    """
    Give the version that a file becomes; one that is here already touches no network.

    Args:
        project: Whose version it is.
        store: Of the project, open to be written.
        wanted: The file, its digest, and what describes it.
        bounds: Of the file's size, and of our patience with servers.

    Raises:
        InvalidInput: There is no digest; tells the one that was found. Or the file does not
            tell its fields and nothing else does.
        IntegrityError: The bytes are not those that were pinned.
        NotFound: There is no such file, repository or revision; names likely ones.
        NotSupported: It holds no model that is loaded safely; says what it is.
        HubFault: A server cannot be reached, or broke off.
    """
    require_model_name(wanted.name)
    is_far = addresses.is_address(wanted.source)
    if wanted.digest is None and is_far:
        raise unpinned_error(addresses.parse_address(wanted.source), bounds)
    sha256 = origin.parse_sha256(wanted.digest) if wanted.digest is not None else None
    if sha256 is not None and (found := _registered(project, store, wanted, sha256)) is not None:
        return found
    if is_far:
        assert sha256 is not None, "an address without a digest was refused"
        held = file_cache.find_cached(store, sha256) or _fetched(store, wanted, sha256, bounds)
    else:
        held = _of_disk(store, wanted, sha256, bounds)
    return _register(project, store, wanted, held)


def unpinned_error(address: Address, bounds: DownloadLimits = BOUNDS) -> InvalidInput:
    """Say which digest a file has that was named without one."""
    sha256, count, commit = _found(address, bounds)
    at = f", commit {commit}" if commit else ""
    much = f" ({format_size(count)}{at})" if count is not None else ""
    return InvalidInput(
        f"{address.text} has no pinned digest. What is there now{much} is sha256:{sha256}.",
        "See that this is the file which you trust, by what its publisher says; then pin it: "
        f"--digest sha256:{sha256}, or digest: sha256:{sha256} in an endpoint.",
    )


def _found(address: Address, bounds: DownloadLimits) -> tuple[str, int | None, str | None]:
    """Give digest, size and commit, by the hub's word or by fetching the file."""
    with _explained(address, bounds):
        if address.hub is not None:
            token = huggingface.token(address)
            with open_url(address.url, bounds, method="HEAD", token=token, follow=False) as answer:
                headers = answer.headers
            if (told := huggingface.told_digest(headers)) is not None:
                return told, declared_size(headers), headers.get("X-Repo-Commit")
        fetched = fetch(address.url, None, bounds, token=huggingface.token(address))
        return fetched.sha256, fetched.size_bytes, fetched.commit


@contextmanager
def _explained(address: Address, bounds: DownloadLimits) -> Iterator[None]:
    try:
        yield
    except HubRefused as error:
        told = huggingface.explained(address, error, bounds)
        if told is error:
            raise
        raise told from error


# ── what is here already ────────────────────────────────────────────────────


def _registered(
    project: Project, store: Store, wanted: ModelImport, sha256: str
) -> ModelVersion | None:
    """Give the version that was made of this file as it is described now, if it is whole."""
    if wanted.tables:
        return None  # tables are content too: `register` tells whether they are the same
    registry = Registry(project, store)
    versions = store.catalog.find(ModelVersion, name=wanted.name, order="-number", limit=None)
    found = origin.find_by_origin(project.packages, versions, sha256, **_sums(wanted))
    if found is None:
        return None
    try:
        registry.read(found)
    except (IntegrityError, NotFound):
        return None  # `models verify` names it; the file is registered anew
    return found


def _sums(wanted: ModelImport) -> dict[str, str]:
    files = {"signature": wanted.signature, "sample": wanted.sample}
    return {key: input_files.sha256(path) for key, path in files.items() if path is not None}


# ── fetching ────────────────────────────────────────────────────────────────


def _fetched(store: Store, wanted: ModelImport, sha256: str, bounds: DownloadLimits) -> CachedFile:
    """Fetch a file into the store, if it has the digest."""
    address = addresses.parse_address(wanted.source)
    with _aside(store) as folder, _explained(address, bounds):
        path = folder / "file"
        fetched = fetch(
            address.url,
            path,
            bounds,
            token=huggingface.token(address),
            judge=lambda headers: _judge(headers, address, sha256, bounds),
        )
        if fetched.sha256 != sha256:
            raise _other(address, fetched.sha256, sha256)
        family_of_file(path.read_bytes(), address.filename)
        made = _origin(address, fetched, huggingface.licence(address, bounds))
        return file_cache.cache_file(store, path, made, address.filename)


def _judge(headers: Any, address: Address, sha256: str, bounds: DownloadLimits) -> None:
    """Refuse by what the hub tells, before the file is fetched."""
    if address.hub is None:
        return
    require_size(
        declared_size({"X-Linked-Size": headers.get("X-Linked-Size", "")}), address.url, bounds
    )
    told = huggingface.told_digest(headers)
    if told is not None and told != sha256:
        raise _other(address, told, sha256)


def _other(address: Address, actual: str, sha256: str) -> IntegrityError:
    return IntegrityError(
        f"{address.text} has the digest sha256:{actual}, not the pinned sha256:{sha256}; nothing "
        "of it was kept.",
        "The file has changed since it was pinned, or another was meant. Pin a commit behind @, or "
        "the new digest after you have checked the file.",
    )


def _origin(address: Address, fetched: Fetched, licence: str | None) -> Origin:
    return Origin(
        source=address.text,
        sha256=fetched.sha256,
        size_bytes=fetched.size_bytes,
        url=address.url,
        revision=address.revision or ("main" if address.hub else None),
        commit=fetched.commit,
        licence=licence,
        fetched=time.time(),
    )


def _of_disk(
    store: Store, wanted: ModelImport, sha256: str | None, bounds: DownloadLimits
) -> CachedFile:
    """Take a file that is on this machine into the store."""
    path = Path(wanted.source)
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        count = path.stat().st_size
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    require_size(count, str(path), bounds)
    if sha256 is not None and actual != sha256:
        raise IntegrityError(
            f"{path} has the digest sha256:{actual}, not sha256:{sha256}.",
            "Find out which of the two is right.",
        )
    family_of_file(path.read_bytes(), path.name)
    made = Origin(source=str(path), sha256=actual, size_bytes=count)
    known = file_cache.find_cached(store, actual)
    return known or file_cache.cache_file(store, path, made, path.name)


@contextmanager
def _aside(store: Store) -> Iterator[Path]:
    """Give a folder that is gone afterwards, however that ends."""
    folder = store.root / "tmp" / f"import-{secrets.token_hex(6)}"
    with disk_errors(folder):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ── registering ─────────────────────────────────────────────────────────────


def _register(
    project: Project, store: Store, wanted: ModelImport, held: CachedFile
) -> ModelVersion:
    """Register the file in a run of its own, whose parameters say where it came from."""
    from clewline.flow.pipeline import pipeline
    from clewline.model.register import register

    is_near = not addresses.is_address(wanted.source)
    path = Path(wanted.source) if is_near else _laid_out(store, held)
    given = {**wanted.tables, **input_files.read(wanted.signature, wanted.sample)}
    made_of = msgspec.structs.replace(held.origin, **_sums(wanted))
    made: list[Any] = []

    @pipeline(name=f"import-{wanted.name}")
    def alone(
        source: str, digest: str, revision: str = "", commit: str = "", licence: str = ""
    ) -> None:
        made.append(register(wanted.name, path, origin=msgspec.to_builtins(made_of), **given))

    from clewline.flow.run import execute

    try:
        execute(alone, _params(made_of), project=project, store=store)
    finally:
        if not is_near:
            shutil.rmtree(path.parent, ignore_errors=True)  # the bytes are a blob
    version: ModelVersion = made[0].value()
    return version


def _params(found: Origin) -> Mapping[str, str]:
    told = {
        "source": found.source,
        "digest": f"sha256:{found.sha256}",
        "revision": found.revision,
        "commit": found.commit,
        "licence": found.licence,
    }
    return {key: value for key, value in told.items() if value is not None}


def _laid_out(store: Store, held: CachedFile) -> Path:
    """Give a kept file a path, by which the run names it."""
    folder = store.root / "hub" / f"{held.origin.sha256[:16]}-{os.getpid()}"
    path = folder / (held.filename if held.filename not in (".", "..") else "model")
    if not path.exists() or digest_bytes(path.read_bytes()) != held.blob:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        store.blobs.copy_to(held.blob, path)
    return path


__all__ = ["BOUNDS", "ClewlineError", "ModelImport", "import_model", "unpinned_error"]
