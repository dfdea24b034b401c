"""
The project's key and the seal over a package.

The private key is an Ed25519 key in PEM (PKCS#8), mode 0600, in
`.clewline/keys/`; its public half is in `clewline.toml`. A seal signs the
digest of the manifest, which lists the digest of every other file. What this
stops, and what it does not, is in `docs/seals.md`.
"""

from __future__ import annotations

import base64
import binascii
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clewline.errors import Conflict, IntegrityError, InvalidConfig, NotFound
from clewline.project import Project
from clewline.store.digest import Digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ALGORITHM = "ed25519"
PACKAGE = b"clewline package seal 1\n"
"""Precedes a signed package digest, so that no signature serves two purposes."""
RESTORE = "Restore the package from a backup, or register the model again."
"""The fix of every error about a damaged package."""

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `seal.json`: the key and the signature that vouch for a package."""

    algorithm: str
    key: str  # base64 of the raw public key
    package: Digest
    signature: str  # base64


def make_keys(private: Path) -> str:
    """
    Create the project's key pair.

    Args:
        private: Path of the new private key. It gets mode 0600, in a folder of mode 0700.

    Returns:
        The public key, for `[keys] public` in `clewline.toml`.

    Raises:
        Conflict: There is already a key at `private`.
    """
    key = Ed25519PrivateKey.generate()
    private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        file = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Conflict(
            f"There is already a private key at {private}.",
            "Keep it: packages sealed with it cannot be checked with another key.",
        ) from error
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(file, "wb") as out:
        out.write(pem)
        out.flush()
        os.fsync(out.fileno())
    return _public_text(key.public_key())


def require_public_key(project: Project) -> str:
    """
    Return the key that the seals of a project are checked with.

    Raises:
        InvalidConfig: `clewline.toml` has none.
    """
    if project.public_key is None:
        raise InvalidConfig(
            f"{project.root}/clewline.toml has no public key, so no seal can be checked.",
            'Put back the line `public = "…"` under [keys] that `clewline init` wrote.',
        )
    return project.public_key


class Sealer:
    """Signs with the project's private key. Safe to use from any thread."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = _public_text(key.public_key())

    @classmethod
    def of(cls, project: Project) -> Sealer:
        """
        Read the private key of a project, and check that it belongs to it.

        Raises:
            NotFound: It is missing.
            InvalidConfig: It belongs to another project.
        """
        sealer, public = cls.read(project.private_key), require_public_key(project)
        if sealer.public != public:
            raise InvalidConfig(
                f"{project.private_key} is not the key of this project: its public half is "
                f"{sealer.public}, and clewline.toml has {public}.",
                "Restore the right one from a backup.",
            )
        return sealer

    @classmethod
    def read(cls, private: Path) -> Sealer:
        """
        Read the private key.

        Raises:
            NotFound: The file does not exist.
            InvalidConfig: The file does not hold an Ed25519 key.
        """
        try:
            key = serialization.load_pem_private_key(private.read_bytes(), password=None)
        except FileNotFoundError as error:
            raise NotFound(
                f"The project's private key is not at {private}, so nothing can be sealed.",
                "Restore the key from a backup, or do this on the machine that has it.",
            ) from error
        except (ValueError, TypeError) as error:
            raise InvalidConfig(
                f"{private} is not a private key: {error}.", "Restore it from a backup."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidConfig(f"{private} is not an Ed25519 key.", "Restore it from a backup.")
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes."""
        return self._key.sign(message)

    def seal(self, package: Digest) -> bytes:
        """Return the bytes of `seal.json` for a package with this digest."""
        signature = self.sign(PACKAGE + package.encode())
        return encode_seal(
            Seal(ALGORITHM, self.public, package, base64.b64encode(signature).decode())
        )

    @cached_property
    def p256(self) -> EllipticCurvePrivateKey:
        """
        Return the ECDSA P-256 key for the bundle.

        Tools that read OMS bundles accept no Ed25519 keys. This key is derived from the
        Ed25519 key, so that there is one secret to keep.

        Source:
            RFC 5869 (HKDF); NIST FIPS 186-5, A.2.1 (extra random bits).
        """
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        # 48 bytes for a 32-byte order: the remainder's bias is below 2**-128.
        spread = HKDF(SHA256(), 48, salt=None, info=b"clewline oms p256 1")
        number = int.from_bytes(spread.derive(self._key.private_bytes_raw()), "big")
        return ec.derive_private_key(number % (P256_ORDER - 1) + 1, ec.SECP256R1())


def verify_signature(public: str, message: bytes, signature: bytes) -> bool:
    """
    Return whether the key's owner signed the message.

    Raises:
        InvalidConfig: `public` is not a public key.

    Source:
        RFC 8032 (Ed25519).
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
    except (ValueError, binascii.Error) as error:
        raise InvalidConfig(
            f"{public!r} is not a public key (base64 of 32 bytes).",
            "Put back the line that `clewline init` wrote into clewline.toml under [keys].",
        ) from error
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def check_seal(data: bytes, public: str, package: Digest) -> None:
    """
    Check every byte of a `seal.json`.

    Args:
        data: The bytes.
        public: The key that must have made it.
        package: The digest that it must vouch for.

    Raises:
        IntegrityError: The key, the digest or the signature is another, or bytes were changed.
    """
    try:
        seal = msgspec.json.decode(data, type=Seal)
        signature = base64.b64decode(seal.signature, validate=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error) as error:
        raise IntegrityError("seal.json cannot be read as a seal.", RESTORE) from error
    if seal.key != public:
        raise IntegrityError(
            f"seal.json was made with the key {seal.key}, not with the project's, {public}.",
            "A package of another project must be registered here before it is served.",
        )
    if seal.package != package:
        raise IntegrityError("manifest.json is not the one that was sealed.", RESTORE)
    # Several base64 texts decode to the same bytes; only the canonical one is accepted.
    exact = Seal(ALGORITHM, public, package, base64.b64encode(signature).decode())
    if (
        not verify_signature(public, PACKAGE + package.encode(), signature)
        or encode_seal(exact) != data
    ):
        raise IntegrityError("seal.json was changed: its signature is not valid.", RESTORE)


def encode_seal(seal: Seal) -> bytes:
    """Return the only accepted text of a seal."""
    return msgspec.json.format(msgspec.json.encode(seal), indent=2) + b"\n"


def _public_text(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()
