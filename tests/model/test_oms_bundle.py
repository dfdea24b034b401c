"""The OMS bundle vouches for these files, by this key, to the byte."""

import base64
import json
from pathlib import Path

import pytest

from clewline.errors import IntegrityError
from clewline.model import oms_bundle, seal
from clewline.model.seal import Sealer

FILES = {"manifest.json": "aa" * 32, "model.onnx": "bb" * 32}


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    seal.make_keys(tmp_path / "key")
    return Sealer.read(tmp_path / "key")


def padded(sealer: Sealer) -> bytes:
    """A bundle whose signature's text ends in `=`, so that its last letter has loose bits."""
    while True:  # ECDSA draws a new number each time; most texts are padded
        data = oms_bundle.create_bundle("income@3", FILES, sealer)
        if json.loads(data)["dsseEnvelope"]["signatures"][0]["sig"].endswith("="):
            return data


def test_it_holds_for_its_bytes_alone(sealer: Sealer) -> None:
    pem = oms_bundle.bundle_public_key(sealer)
    good = padded(sealer)
    oms_bundle.check_bundle(good, "income@3", FILES, pem)
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            with pytest.raises(IntegrityError):
                oms_bundle.check_bundle(bytes(bad), "income@3", FILES, pem)


def test_it_holds_for_these_files_of_this_model_alone(sealer: Sealer) -> None:
    pem = oms_bundle.bundle_public_key(sealer)
    data = oms_bundle.create_bundle("income@3", FILES, sealer)
    for name, files in [
        ("income@2", FILES),
        ("income@3", {**FILES, "model.onnx": "bc" * 32}),
        ("income@3", {**FILES, "more": "cc" * 32}),
    ]:
        with pytest.raises(IntegrityError):
            oms_bundle.check_bundle(data, name, files, pem)


def test_it_is_a_statement_that_others_can_read(sealer: Sealer) -> None:
    """The shape that OpenSSF Model Signing 1.0 states."""
    envelope = json.loads(oms_bundle.create_bundle("income@3", FILES, sealer))["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    assert statement["subject"][0]["name"] == "income@3"
    resources = {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
    assert resources == FILES
