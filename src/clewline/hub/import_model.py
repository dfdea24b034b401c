"""Register a model file from a hub, a server or this machine: once, and by its digest."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from clewline import config
from clewline.data.table_files import read_table
from clewline.errors import ClewlineError, IntegrityError, InvalidInput, NotFound
from clewline.formatting import format_size
from clewline.hub import huggingface
from clewline.hub.address import Address, is_address, parse_address
from clewline.hub.download import (
    DownloadLimits,
    HubRefused,
    declared_size,
    download_file,
    open_url,
    require_size,
)
from clewline.model.families.model_files import family_of_file, require_sha256
from clewline.model.origin import Origin, find_by_origin, parse_sha256
from clewline.model.registry import Registry
from clewline.project import Project
from clewline.signature.field import Signature
from clewline.store.digest import Digest
from clewline.store.disk import disk_errors, replace_file
from clewline.store.records import ModelVersion
from clewline.store.ref import require_model_name
from clewline.store.store import Store

LIMITS = DownloadLimits()
SIGNATURE_EXAMPLE = (
    'It looks like {"fields": [{"name": "x", "kind": "tensor", "dtype": "float32", '
    '"shape": [3]}], "output": {"name": "y", "task": "regression"}}, as JSON or YAML.'
)


class ModelImport(msgspec.Struct, frozen=True, kw_only=True):
    """A model file to be imported, and what describes it."""

    source: str  # hf:OWNER/REPO/FILE, https://…, or a path
    name: str  # of the model that it becomes
    digest: str | None = None  # sha256:…; an address needs one
    signature: Path | None = None  # JSON or YAML that states fields and output
    sample: Path | None = None  # CSV or Parquet with rows, without the target or with it
    tables: dict[str, Any] = {}  # train, test and target, for `register`


class CachedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A downloaded file: a blob of the store, found again by the SHA-256 that pins it."""

    blob: Digest
    origin: Origin
    filename: str


def import_model(
    project: Project, store: Store, wanted: ModelImport, limits: DownloadLimits = LIMITS
) -> ModelVersion:
    """
    Return the version that a file becomes; if it exists already, the network is not used.

    Args:
        project: Gets the version.
        store: Of the project, open for writing.
        wanted: The file, its digest, and what describes it.
        limits: Of the file's size, and of the time to wait for servers.

    Raises:
        UsageError: The name cannot name a model.
        InvalidInput: There is no digest (names the one that was found), or neither the file
            nor anything else states its fields.
        IntegrityError: The digest of the bytes is not the pinned one.
        NotFound: There is no such file, repository or revision; names likely ones.
        NotSupported: It holds no model that can be loaded safely; says what it is.
        HubFault: A server cannot be reached, or broke off.
    """
    require_model_name(wanted.name)
    is_remote = is_address(wanted.source)
    if wanted.digest is None and is_remote:
        raise unpinned_error(parse_address(wanted.source), limits)
    sha256 = None if wanted.digest is None else parse_sha256(wanted.digest)
    registry = Registry(project, store)
    # Tables are content too: with them, `register` decides whether the version is the same.
    if sha256 is not None and not wanted.tables:
        versions = store.catalog.find(ModelVersion, name=wanted.name, order="-number", limit=None)
        found = find_by_origin(project.packages, versions, sha256, **_description(wanted))
        if found is not None:
            try:
                registry.read(found)
                return found
            except (IntegrityError, NotFound):
                pass  # `models verify` names it; the file is registered again
    if sha256 is not None and is_remote:
        file = _find_cached(store, sha256) or _download(store, wanted.source, sha256, limits)
    else:
        file = _read_local(store, Path(wanted.source), sha256, limits)
    return _register(project, store, wanted, file)


def _description(wanted: ModelImport) -> dict[str, str]:
    """Return the digests of the files that describe the model."""
    files = {"signature": wanted.signature, "sample": wanted.sample}
    return {
        key: hashlib.sha256(_read_bytes(path)).hexdigest()
        for key, path in files.items()
        if path is not None
    }


def unpinned_error(address: Address, limits: DownloadLimits = LIMITS) -> InvalidInput:
    """
    Return the error that names the digest of a file without a pinned one.

    Raises:
        HubFault, HubRefused, NotFound, Forbidden: The file cannot be found.
    """
    commit: str | None = None
    with _explain(address, limits):
        token, found = huggingface.token(address), None
        if address.hub is not None:
            with open_url(
                address.url, limits, method="HEAD", token=token, follow=False
            ) as response:
                headers = response.first_headers
            found, count = huggingface.linked_digest(headers), declared_size(headers)
            commit = headers.get("X-Repo-Commit")
        if found is None:
            file = download_file(address.url, None, limits, token=token)
            found, count, commit = file.sha256, file.size_bytes, file.commit
    facts = [format_size(count)] if count is not None else []
    facts += [f"commit {commit}"] if commit else []
    about = f" ({', '.join(facts)})" if facts else ""
    return InvalidInput(
        f"{address.text} has no pinned digest. The digest of the current file{about} is "
        f"sha256:{found}.",
        "Compare it with what the publisher says, then pin it: "
        f"--digest sha256:{found}, or digest: sha256:{found} in an endpoint.",
    )


@contextmanager
def _explain(address: Address, limits: DownloadLimits) -> Iterator[None]:
    try:
        yield
    except HubRefused as error:
        explained = huggingface.explain_refusal(address, error, limits)
        if explained is error:
            raise
        raise explained from error


def _download(store: Store, source: str, sha256: str, limits: DownloadLimits) -> CachedFile:
    """Fetch a file into the store, if it has the digest."""
    address = parse_address(source)

    def check_headers(headers: Any) -> None:
        """Refuse by the hub's statement, before the file is fetched."""
        if address.hub is not None:
            linked = {"X-Linked-Size": headers.get("X-Linked-Size", "")}
            require_size(declared_size(linked), address.url, limits)
            _require_pinned(address, huggingface.linked_digest(headers) or sha256, sha256)

    token = huggingface.token(address)
    with _temporary_folder(store, "tmp") as folder, _explain(address, limits):
        path = Path(folder) / "file"
        file = download_file(address.url, path, limits, token=token, check_headers=check_headers)
        _require_pinned(address, file.sha256, sha256)
        family_of_file(path.read_bytes(), address.filename)
        origin = Origin(
            source=address.text,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
            url=address.url,
            revision=address.revision or ("main" if address.hub else None),
            commit=file.commit,
            licence=huggingface.licence(address, limits),
            fetched=time.time(),
        )
        return _cache_file(store, path, origin, address.filename)


def _require_pinned(address: Address, actual: str, sha256: str) -> None:
    if actual != sha256:
        raise IntegrityError(
            f"{address.text} has the digest sha256:{actual}, not the pinned sha256:{sha256}; "
            "nothing of it was kept.",
            "The file changed after it was pinned, or another was meant. Pin a commit after the @, "
            "or check the file and pin its new digest.",
        )


def _read_local(store: Store, path: Path, sha256: str | None, limits: DownloadLimits) -> CachedFile:
    """Copy a file of this machine into the store."""
    try:
        require_size(path.stat().st_size, str(path), limits)
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    if sha256 is not None:
        require_sha256(data, sha256, str(path))
    family_of_file(data, path.name)
    actual = hashlib.sha256(data).hexdigest()
    origin = Origin(source=str(path), sha256=actual, size_bytes=len(data))
    return _find_cached(store, actual) or _cache_file(store, path, origin, path.name)


def _cache_file(store: Store, path: Path, origin: Origin, filename: str) -> CachedFile:
    """Copy a checked file into the store's blobs, durably."""
    file = CachedFile(blob=store.blobs.put_file(path), origin=origin, filename=filename)
    store.blobs.flush()
    record = _record_path(store, origin.sha256)
    with disk_errors(record):
        record.parent.mkdir(exist_ok=True)
        replace_file(record, msgspec.json.encode(file), durable=True)
    return file


def _find_cached(store: Store, sha256: str) -> CachedFile | None:
    """Find a file by its SHA-256; None if there is none, or its blob is missing or damaged."""
    try:
        file = msgspec.json.decode(_record_path(store, sha256).read_bytes(), type=CachedFile)
        store.blobs.get(file.blob)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ClewlineError):
        return None  # it is fetched again
    return file


def _record_path(store: Store, sha256: str) -> Path:
    return store.root / "hub" / f"{sha256}.json"


def _register(
    project: Project, store: Store, wanted: ModelImport, file: CachedFile
) -> ModelVersion:
    """Register the file in a separate run, which has its origin as parameters."""
    from clewline.flow.pipeline import pipeline
    from clewline.flow.run import execute
    from clewline.model.register import register

    inputs = dict(wanted.tables)
    if wanted.signature is not None:
        inputs["signature"] = _read_signature(wanted.signature)
    if wanted.sample is not None:
        inputs["train"] = read_table(wanted.sample)
    origin = msgspec.structs.replace(file.origin, **_description(wanted))
    registered: list[Any] = []
    params = {"source": origin.source, "digest": f"sha256:{origin.sha256}"}
    for name in ("revision", "commit", "licence"):
        if (value := getattr(origin, name)) is not None:
            params[name] = value
    with _temporary_folder(store, "hub") as folder:
        path = Path(wanted.source)
        if is_address(wanted.source):  # the run names the file by a path
            path = Path(folder) / (file.filename if file.filename not in (".", "..") else "model")
            store.blobs.copy_to(file.blob, path)

        @pipeline(name=f"import-{wanted.name}")
        def import_file(
            source: str, digest: str, revision: str = "", commit: str = "", licence: str = ""
        ) -> None:
            fields = msgspec.to_builtins(origin)
            registered.append(register(wanted.name, path, origin=fields, **inputs))

        execute(import_file, params, project=project, store=store)
    version: ModelVersion = registered[0].value()
    return version


def _temporary_folder(store: Store, parent: str) -> tempfile.TemporaryDirectory[str]:
    folder = store.root / parent
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="import-", dir=folder)


def _read_signature(path: Path) -> Signature:
    """
    Read a signature from JSON or YAML.

    Raises:
        InvalidInput: It is not a signature; shows one.
    """
    data = _read_bytes(path)
    try:
        if path.suffix in (".yaml", ".yml"):
            return msgspec.convert(config.parse(data, path, SIGNATURE_EXAMPLE), Signature)
        return msgspec.json.decode(data, type=Signature)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a signature: {error}.", SIGNATURE_EXAMPLE) from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
