"""The project's key: made once, private, and the only one that seals."""

import stat
from pathlib import Path

import pytest

from clewline.errors import Conflict, IntegrityError, InvalidConfig, NotFound
from clewline.model import seal
from clewline.model.seal import Sealer
from clewline.store.digest import digest_bytes


def test_the_private_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    seal.make_keys(tmp_path / "keys" / "seal.key")
    assert stat.S_IMODE((tmp_path / "keys" / "seal.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    public = seal.make_keys(tmp_path / "key")
    with pytest.raises(Conflict):
        seal.make_keys(tmp_path / "key")
    assert Sealer.read(tmp_path / "key").public == public


def test_only_the_same_message_and_key_verify(tmp_path: Path) -> None:
    public = seal.make_keys(tmp_path / "a")
    other = seal.make_keys(tmp_path / "b")
    signature = Sealer.read(tmp_path / "a").sign(b"message")
    assert seal.verify_signature(public, b"message", signature)
    assert not seal.verify_signature(public, b"massage", signature)
    assert not seal.verify_signature(other, b"message", signature)


def test_the_bundle_key_follows_from_the_one_secret(tmp_path: Path) -> None:
    seal.make_keys(tmp_path / "a")
    first, second = Sealer.read(tmp_path / "a"), Sealer.read(tmp_path / "a")
    assert first.p256.private_numbers() == second.p256.private_numbers()


def test_a_missing_or_foreign_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="backup"):
        Sealer.read(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InvalidConfig, match="not a private key"):
        Sealer.read(tmp_path / "text")
    with pytest.raises(InvalidConfig, match=r"clewline\.toml"):
        seal.verify_signature("c2hvcnQ=", b"", b"")


def test_a_seal_holds_for_its_bytes_alone(tmp_path: Path) -> None:
    """Also where base64 leaves bits at the end that decode to nothing."""
    public = seal.make_keys(tmp_path / "a")
    digest = digest_bytes(b"manifest")
    good = Sealer.read(tmp_path / "a").seal(digest)
    seal.check_seal(good, public, digest)
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            with pytest.raises(IntegrityError):
                seal.check_seal(bytes(bad), public, digest)
