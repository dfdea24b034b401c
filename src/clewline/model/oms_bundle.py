"""
The OMS bundle of a package, for other tools.

OpenSSF Model Signing 1.0: an in-toto statement with the SHA-256 of every file
of the package but the bundle itself, in a DSSE envelope, in a Sigstore bundle.
The signature is ECDSA on P-256, because tools that read such bundles take no
Ed25519 keys.

Source:
    https://github.com/ossf/model-signing-spec
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from clewline.errors import IntegrityError
from clewline.model.seal import RESTORE, Sealer

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def bundle_public_key(sealer: Sealer) -> str:
    """Return the key that checks the bundle, as PEM."""
    key = sealer.p256.public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def create_bundle(name: str, sha256: Mapping[str, str], sealer: Sealer) -> bytes:
    """
    Create the bundle.

    Args:
        name: The subject, such as `income@3`.
        sha256: File name → hexadecimal SHA-256, of every other file of the package.
        sealer: Signs the bundle.
    """
    payload = _statement(name, sha256)
    signature = sealer.p256.sign(_signed(payload), ec.ECDSA(SHA256()))
    return _bundle(payload, base64.b64encode(signature).decode(), bundle_public_key(sealer))


def check_bundle(data: bytes, name: str, sha256: Mapping[str, str], pem: str) -> None:
    """
    Check every byte of a bundle.

    Args:
        data: The bundle.
        name: The subject that it must name.
        sha256: File name → hexadecimal SHA-256, of every other file of the package.
        pem: The public key that must have signed it.

    Raises:
        IntegrityError: It states something else, or its signature is not valid.
    """
    try:
        text = msgspec.json.decode(data)["dsseEnvelope"]["signatures"][0]["sig"]
        signature = base64.b64decode(text, validate=True)
        key = load_pem_public_key(pem.encode())
        payload = _statement(name, sha256)
        text = base64.b64encode(signature).decode()  # without loose bits at the end
        if not isinstance(key, ec.EllipticCurvePublicKey) or data != _bundle(payload, text, pem):
            raise IntegrityError("model.sig is not the bundle that was written.", RESTORE)
        key.verify(signature, _signed(payload), ec.ECDSA(SHA256()))
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, binascii.Error) as error:
        raise IntegrityError("model.sig cannot be read as an OMS bundle.", RESTORE) from error
    except InvalidSignature as error:
        raise IntegrityError(
            "model.sig was changed: its signature is not valid.", RESTORE
        ) from error


def _statement(name: str, sha256: Mapping[str, str]) -> bytes:
    files = sorted(sha256.items())
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in files))
    statement: dict[str, Any] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": root.hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig"],
            },
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": digest} for path, digest in files
            ],
        },
    }
    return msgspec.json.encode(statement)


def _signed(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _bundle(payload: bytes, signature: str, pem: str) -> bytes:
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(pem.encode()).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": signature, "keyid": ""}],
        },
    }
    return msgspec.json.format(msgspec.json.encode(bundle), indent=2) + b"\n"
