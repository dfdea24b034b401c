"""
The sealed package of a model version: one flat folder, written once.

    manifest.json    what it is, where it came from, and the digests of the files below
    signature.json   fields and output
    model.onnx       or model.skops
    equality.json    how the compiled model was held against the original
    profile.json     counts in fixed bins per field and output
    background.json  up to 256 training rows
    seal.json        the project's signature on the manifest
    model.sig        the OMS bundle, for tools of others

The package's digest is that of `manifest.json`, which lists every other file:
a tree of two levels. Opening reads each file once, digests those bytes and
hands out those bytes; whatever is not listed, or not a plain file, is refused.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from clewline.errors import Conflict, IntegrityError, NotFound
from clewline.model import oms_bundle, seal
from clewline.model.origin import Origin
from clewline.model.seal import Sealer
from clewline.signature.field import Signature
from clewline.store.digest import Digest, digest_bytes
from clewline.store.disk import disk_errors, sync_folder

MANIFEST, SEAL, BUNDLE = "manifest.json", "seal.json", "model.sig"
SIGNATURE, EQUALITY = "signature.json", "equality.json"
PROFILE, BACKGROUND = "profile.json", "background.json"
DRAFT = ".draft-"
"""How the folder of a package that is not sealed yet begins; then the process id."""
OWN = frozenset({MANIFEST, SEAL, BUNDLE})
"""Files that the manifest does not list: itself and the two that vouch for it."""

_NONE: Mapping[str, Digest] = {}


class FileEntry(msgspec.Struct, frozen=True):
    """One listed file."""

    size_bytes: int
    blake3: Digest
    sha256: str


class PackageMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says of a model, besides its files."""

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
    report: dict[str, Any] | None = None  # metrics with intervals, baseline rule
    encoding: dict[str, Any] = {}  # how nulls and texts reach the model
    equality: dict[str, Any] = {}  # summary; the whole record is equality.json
    versions: dict[str, str] = {}
    origin: Origin | None = None  # of a file that was brought


class Manifest(PackageMetadata, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `manifest.json`."""

    format: int = 1
    content: Digest
    bundle_key: str  # PEM of the key that checks model.sig
    files: dict[str, FileEntry]

    @property
    def ref(self) -> str:
        """`name@number`."""
        return f"{self.name}@{self.number}"


class Package(msgspec.Struct, frozen=True):
    """A package whose every byte has been checked."""

    digest: Digest
    manifest: Manifest
    signature: Signature
    files: dict[str, bytes]  # the listed ones: name → the bytes that were digested

    @property
    def size_bytes(self) -> int:
        """Size of the listed files."""
        return sum(entry.size_bytes for entry in self.manifest.files.values())


def write_package(
    folder: Path, files: Mapping[str, bytes], about: PackageMetadata, private_key: Path
) -> Digest:
    """
    Write and seal a package; it is there wholly or not at all, and durable.

    Args:
        folder: Where it goes; must not exist yet.
        files: Name → bytes: `signature.json`, the model, and what else belongs to it.
        about: The rest of the manifest.
        private_key: The project's, made by `seal.make_keys`.

    Returns:
        The package's digest.

    Raises:
        Conflict: `folder` exists.
    """
    draft = PackageDraft(folder.parent, files)
    try:
        return draft.publish(folder, about, Sealer.read(private_key))
    finally:
        draft.discard()


class PackageDraft:
    """
    A package that is not sealed yet, in a hidden folder of its own.

    The large files are written ahead, so that giving it a number, sealing it and
    moving it into place takes milliseconds.
    """

    def __init__(
        self, parent: Path, files: Mapping[str, bytes], logical: Mapping[str, Digest] = _NONE
    ) -> None:
        for name in files:
            _check_name(name)
        self.folder = parent / f"{DRAFT}{os.getpid()}-{secrets.token_hex(4)}"
        self.entries = {name: _entry(data) for name, data in sorted(files.items())}
        self.content = content_digest(files, logical)
        try:
            with disk_errors(parent):
                self.folder.mkdir(parents=True)
                for name, data in files.items():
                    _write(self.folder / name, data)
        except BaseException:
            self.discard()
            raise

    @property
    def size_bytes(self) -> int:
        """Size of the files that the manifest will list."""
        return sum(entry.size_bytes for entry in self.entries.values())

    def publish(self, folder: Path, about: PackageMetadata, sealer: Sealer) -> Digest:
        """
        Seal it and move it to `folder`, durably. Once only.

        Raises:
            Conflict: `folder` exists.
            StoreFull: The disk is full; nothing is at `folder`.
        """
        manifest = Manifest(
            **msgspec.structs.asdict(about),
            content=self.content,
            bundle_key=oms_bundle.public_pem(sealer),
            files=self.entries,
        )
        data = _pretty(manifest)
        digest = digest_bytes(data)
        sealed = sealer.seal(digest)
        sha256 = _sha256(manifest, data, sealed)
        with disk_errors(folder):
            _write(self.folder / MANIFEST, data)
            _write(self.folder / SEAL, sealed)
            _write(self.folder / BUNDLE, oms_bundle.make_bundle(manifest.ref, sha256, sealer))
            sync_folder(self.folder)
            _move(self.folder, folder)
        return digest

    def discard(self) -> None:
        """Remove what was not published."""
        shutil.rmtree(self.folder, ignore_errors=True)


def open_package(folder: Path, public_key: str, expected: Digest | None = None) -> Package:
    """
    Read a package and check every byte of it.

    Args:
        folder: The package.
        public_key: The project's, from `clewline.toml`.
        expected: The digest that the catalog or a revision holds; none is asked for if None.

    Raises:
        NotFound: There is no such folder.
        IntegrityError: Something in it was changed, added or removed; names each path.
    """
    try:
        return _open(folder, public_key, expected)
    except IntegrityError as error:
        raise IntegrityError(f"The package {folder}: {error.message}", error.fix) from error


def content_digest(files: Mapping[str, bytes], logical: Mapping[str, Digest] = _NONE) -> Digest:
    """
    Digest what a package answers with, whoever registered it and when.

    Covers every file but the record of the equality test, which names versions.

    Args:
        files: Of the package.
        logical: Digests of the content of files whose bytes differ each time they
            are written: skops writes addresses and times.
    """
    parts = {name: digest_bytes(data) for name, data in files.items() if name != EQUALITY}
    parts |= {name: digest for name, digest in logical.items() if name in parts}
    return digest_bytes(b"clewline model content 1\n" + _canonical(parts))


def _open(folder: Path, public_key: str, expected: Digest | None) -> Package:
    present = _scan(folder)
    if missing := sorted(OWN - present):
        raise IntegrityError(f"{', '.join(missing)} missing.", _MEND)
    data = _read(folder / MANIFEST)
    digest = digest_bytes(data)
    sealed = _read(folder / SEAL)
    seal.check(sealed, public_key, digest)
    if expected is not None and digest != expected:
        raise IntegrityError(
            f"it is sealed, but is not the one recorded: {digest[:12]}, not {expected[:12]}.", _MEND
        )
    manifest = _manifest(data)
    files = _files(folder, manifest, present)
    oms_bundle.check_bundle(
        _read(folder / BUNDLE),
        manifest.ref,
        _sha256(manifest, data, sealed),
        manifest.bundle_key,
    )
    signature = msgspec.json.decode(files[SIGNATURE], type=Signature)
    return Package(digest, manifest, signature, files)


def _scan(folder: Path) -> set[str]:
    """Name what is in the folder; anything but plain files is refused."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"There is no package at {folder}.", "Restore it from a backup, or register it again."
        ) from error
    strange = sorted(entry.name for entry in entries if not entry.is_file(follow_symlinks=False))
    if strange:
        raise IntegrityError(f"{_names(strange)} is not a plain file.", "Remove it.")
    return {entry.name for entry in entries}


def _manifest(data: bytes) -> Manifest:
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"manifest.json is sealed, but this version cannot read it: {error}.",
            "Use the clewline that wrote it, or a newer one.",
        ) from error


def _files(folder: Path, manifest: Manifest, present: set[str]) -> dict[str, bytes]:
    listed = set(manifest.files)
    problems = [f"{name} missing" for name in sorted(listed - present)]
    problems += [f"{_names([name])} not listed" for name in sorted(present - listed - OWN)]
    files = {name: _read(folder / name) for name in sorted(listed & present)}
    problems += [
        f"{name} changed" for name, data in files.items() if not _same(manifest.files[name], data)
    ]
    if problems:
        raise IntegrityError("; ".join(problems) + ".", _MEND)
    return files


def _same(entry: FileEntry, data: bytes) -> bool:
    return len(data) == entry.size_bytes and digest_bytes(data) == entry.blake3


def _read(path: Path) -> bytes:
    """Read a plain file, once; a link that was put there meanwhile is not followed."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise IntegrityError(f"{path.name} cannot be read: {error.strerror}.", _MEND) from error
    with os.fdopen(file, "rb") as source:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise IntegrityError(f"{path.name} is not a plain file.", _MEND)
        return source.read()


_MEND = "Restore the package from a backup, or register the model again."


def _sha256(manifest: Manifest, data: bytes, sealed: bytes) -> dict[str, str]:
    listed = {name: entry.sha256 for name, entry in manifest.files.items()}
    own = {MANIFEST: hashlib.sha256(data).hexdigest(), SEAL: hashlib.sha256(sealed).hexdigest()}
    return listed | own


def _entry(data: bytes) -> FileEntry:
    return FileEntry(len(data), digest_bytes(data), hashlib.sha256(data).hexdigest())


def _check_name(name: str) -> None:
    if name in OWN or name.startswith(".") or "/" in name or "\0" in name or not name:
        raise ValueError(f"{name!r} cannot be the name of a file in a package")


def _names(names: Iterable[str]) -> str:
    """Show names that an attacker may have chosen."""
    return ", ".join(repr(name) for name in names)


def _write(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if target.exists():
            raise FileExistsError(target)
        source.rename(target)
    except OSError as error:
        if not target.exists():
            raise
        raise Conflict(
            f"There is a package at {target} already.", "Packages never change; write another."
        ) from error
    for folder in {target.parent, target.parent.parent, source.parent}:
        sync_folder(folder)


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
