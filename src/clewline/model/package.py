"""
The sealed package of a model version: one flat folder, written once.

    manifest.json    what it is, where it came from, and the digests of the files below
    signature.json   fields and output
    model.onnx       or model.skops
    equality.json    how the compiled model was compared with the original
    profile.json     counts in fixed bins per field and output
    background.json  up to 256 training rows
    evaluation.json  what `cl.evaluate` found out, if the model was evaluated
    training_sample.parquet  up to 10,000 training rows, their truth and the model's answers
    seal.json        the project's signature on the manifest
    model.sig        the OMS bundle, for other tools

The package's digest is that of `manifest.json`, which lists every other file: a tree of two
levels. Opening reads each file once, and digests and returns those bytes; the training sample
and the evaluation are read when they are needed. A file that is not listed, or not a plain file,
is refused.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from clewline.errors import Conflict, IntegrityError, NotFound
from clewline.model.families.family import EQUALITY, EVALUATION, ON_DEMAND, SIGNATURE
from clewline.model.oms_bundle import bundle_public_key, check_bundle, create_bundle
from clewline.model.origin import Origin
from clewline.model.seal import RESTORE, Sealer, check_seal
from clewline.signature.field import Signature
from clewline.store.digest import Digest, digest_bytes
from clewline.store.disk import disk_errors, make_folder, sync_folder

MANIFEST, SEAL, BUNDLE = "manifest.json", "seal.json", "model.sig"
DRAFT = ".draft-"
"""Begins the name of the folder of a package that is not sealed yet; the process id follows."""
UNLISTED = frozenset({MANIFEST, SEAL, BUNDLE})
"""Files that the manifest does not list: itself and the two that vouch for it."""


class PackageFile(msgspec.Struct, frozen=True):
    """One listed file."""

    size_bytes: int
    blake3: Digest
    sha256: str


class PackageMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says about a model, besides its files."""

    name: str
    number: int
    runtime: str  # onnx, sklearn
    task: str  # binary, multiclass, regression
    target: str
    created: float  # seconds since the epoch, UTC
    run: str | None = None
    step_run: str | None = None
    data: dict[str, Any] = {}  # parameter → {"artifact": digest, "rows": n}
    code: dict[str, Any] = {}  # commit, changed, snapshot
    environment: Digest | None = None
    report: dict[str, Any] | None = None  # the small part of evaluation.json
    encoding: dict[str, Any] = {}  # how nulls and texts reach the model
    equality: dict[str, Any] = {}  # summary; the whole record is equality.json
    versions: dict[str, str] = {}
    origin: Origin | None = None  # of an imported file


class Manifest(PackageMetadata, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `manifest.json`."""

    format: int = 1
    content: Digest
    bundle_key: str  # PEM of the key that checks model.sig
    files: dict[str, PackageFile]

    @property
    def ref(self) -> str:
        """`name@number`."""
        return f"{self.name}@{self.number}"


class Package(msgspec.Struct, frozen=True):
    """A package whose bytes have been checked."""

    folder: Path
    digest: Digest
    manifest: Manifest
    signature: Signature
    files: dict[str, bytes]  # the listed ones but `ON_DEMAND`: name → the bytes that were digested

    @property
    def size_bytes(self) -> int:
        """Size of the listed files."""
        return sum(entry.size_bytes for entry in self.manifest.files.values())

    def read_file(self, name: str) -> bytes:
        """
        Return the bytes of a listed file; if they are not at hand, read and check them.

        Raises:
            IntegrityError: It is missing, or its bytes are not those that were sealed.
        """
        if name in self.files:
            return self.files[name]
        data = _read(self.folder / name)
        if not _is_sealed(data, self.manifest.files[name]):
            raise IntegrityError(f"{name} of {self.manifest.ref} was changed.", RESTORE)
        return data


class PackageDraft:
    """
    A package that is not sealed yet, in a hidden folder.

    The large files are written first, so that numbering, sealing and moving the package takes
    milliseconds. Leaving the context removes whatever was not published.

    Args:
        parent: The folder that holds the draft.
        files: Name → bytes: `signature.json`, the model, and what else belongs to it.
        logical: Digests of the content of files whose bytes differ each time they are
            written; see `content_digest`.

    Raises:
        StoreFull: The disk is full.
    """

    def __init__(
        self,
        parent: Path,
        files: Mapping[str, bytes],
        logical: Mapping[str, Digest] | None = None,
    ) -> None:
        for name in files:
            if name in UNLISTED or name.startswith(".") or "/" in name or "\0" in name or not name:
                raise ValueError(f"{name!r} cannot be the name of a file in a package")
        self.folder = parent / f"{DRAFT}{os.getpid()}-{secrets.token_hex(4)}"
        self.content = content_digest(files, logical)
        self.files = {
            name: PackageFile(len(data), digest_bytes(data), hashlib.sha256(data).hexdigest())
            for name, data in sorted(files.items())
        }
        try:
            with disk_errors(parent):
                self.folder.mkdir(mode=0o700, parents=True)
                for name, data in files.items():
                    _write(self.folder / name, data)
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> PackageDraft:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove what was not published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self, folder: Path, metadata: PackageMetadata, sealer: Sealer) -> Digest:
        """
        Seal the package and move it to `folder`, durably. Once only.

        Returns:
            The package's digest.

        Raises:
            Conflict: `folder` exists.
            StoreFull: The disk is full; nothing is at `folder`.
        """
        manifest = Manifest(
            **msgspec.structs.asdict(metadata),
            content=self.content,
            bundle_key=bundle_public_key(sealer),
            files=self.files,
        )
        data = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        digest = digest_bytes(data)
        seal = sealer.seal(digest)
        bundle = create_bundle(manifest.ref, _sha256_of_all(manifest, data, seal), sealer)
        with disk_errors(folder):
            for name, content in ((MANIFEST, data), (SEAL, seal), (BUNDLE, bundle)):
                _write(self.folder / name, content)
            sync_folder(self.folder)
            make_folder(folder.parent)
            try:
                if folder.exists():
                    raise FileExistsError(folder)
                self.folder.rename(folder)
            except OSError as error:
                if not folder.exists():
                    raise
                raise Conflict(
                    f"There is already a package at {folder}.",
                    "Packages never change; write another.",
                ) from error
            for each in {folder.parent, folder.parent.parent, self.folder.parent}:
                sync_folder(each)
        return digest


def _write(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def content_digest(
    files: Mapping[str, bytes], logical: Mapping[str, Digest] | None = None
) -> Digest:
    """
    Return the digest of what a package answers with, whoever registered it and when.

    Covers every file except the record of the equivalence check, which names versions, and
    the evaluation, which says nothing that the model answers with.

    Args:
        files: The package's.
        logical: Digests of the content of files whose bytes differ each time they are
            written: skops writes addresses and times.
    """
    parts = {
        name: (logical or {}).get(name) or digest_bytes(data)
        for name, data in files.items()
        if name not in (EQUALITY, EVALUATION)
    }
    return digest_bytes(b"clewline model content 1\n" + msgspec.json.encode(parts, order="sorted"))


def open_package(
    folder: Path,
    public_key: str,
    expected: Digest | None = None,
    ref: str | None = None,
    *,
    whole: bool = True,
) -> Package:
    """
    Read a package and check every byte of it.

    Args:
        folder: The package.
        public_key: The project's, from `clewline.toml`.
        expected: The digest that the catalog or a revision holds; None accepts any.
        ref: The version that it must be, `name@number`; None accepts any.
        whole: Whether to check the files that are read on demand, too. They must be there in
            any case.

    Raises:
        NotFound: There is no such folder.
        IntegrityError: Something in it was changed, added or removed; names each path.
    """
    try:
        package = _open(folder, public_key, expected, whole)
    except IntegrityError as error:
        raise IntegrityError(f"The package {folder}: {error.message}", error.fix) from error
    if ref is not None and package.manifest.ref != ref:
        raise IntegrityError(f"The package {folder} belongs to {package.manifest.ref}.", RESTORE)
    return package


def _open(folder: Path, public_key: str, expected: Digest | None, whole: bool) -> Package:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"There is no package at {folder}.", "Restore it from a backup, or register it again."
        ) from error
    for entry in entries:
        if not entry.is_file(follow_symlinks=False):
            raise IntegrityError(f"{entry.name!r} is not a plain file.", "Remove it.")
    present = {entry.name for entry in entries}
    if missing := sorted(UNLISTED - present):
        raise IntegrityError(f"{', '.join(missing)} missing.", RESTORE)
    data, seal = _read(folder / MANIFEST), _read(folder / SEAL)
    digest = digest_bytes(data)
    check_seal(seal, public_key, digest)
    if expected is not None and digest != expected:
        raise IntegrityError(
            f"it is sealed, but its digest is {digest[:12]}, not the recorded {expected[:12]}.",
            RESTORE,
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"manifest.json is sealed, but this version cannot read it: {error}.",
            "Use the clewline that wrote it, or a newer one.",
        ) from error
    listed = set(manifest.files)
    wanted = listed & present if whole else listed & present - ON_DEMAND
    files = {name: _read(folder / name) for name in sorted(wanted)}
    problems = [
        *(f"{name} missing" for name in sorted(listed - present)),
        *(f"{name!r} not listed" for name in sorted(present - listed - UNLISTED)),
        *(
            f"{name} changed"
            for name, content in files.items()
            if not _is_sealed(content, manifest.files[name])
        ),
    ]
    if problems:
        raise IntegrityError("; ".join(problems) + ".", RESTORE)
    sha256 = _sha256_of_all(manifest, data, seal)
    check_bundle(_read(folder / BUNDLE), manifest.ref, sha256, manifest.bundle_key)
    signature = msgspec.json.decode(files[SIGNATURE], type=Signature)
    files = {name: data for name, data in files.items() if name not in ON_DEMAND}
    return Package(folder, digest, manifest, signature, files)


def _is_sealed(data: bytes, sealed: PackageFile) -> bool:
    return len(data) == sealed.size_bytes and digest_bytes(data) == sealed.blake3


def _read(path: Path) -> bytes:
    """Read a plain file once; do not follow a link that somebody puts in its place."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise IntegrityError(f"{path.name} cannot be read: {error.strerror}.", RESTORE) from error
    with os.fdopen(file, "rb") as source:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise IntegrityError(f"{path.name} is not a plain file.", RESTORE)
        return source.read()


def _sha256_of_all(manifest: Manifest, data: bytes, seal: bytes) -> dict[str, str]:
    """Return the SHA-256 of every file except the bundle."""
    listed = {name: file.sha256 for name, file in manifest.files.items()}
    unlisted = {MANIFEST: data, SEAL: seal}
    return listed | {name: hashlib.sha256(each).hexdigest() for name, each in unlisted.items()}
