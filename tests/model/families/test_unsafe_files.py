"""Files that nobody should load are told by their content, whatever they are named."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.errors import NotSupported
from clewline.model.families import unsafe_files as formats
from clewline.model.register import convert_model


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was loaded",))


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return out.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def array(value: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, value, allow_pickle=True)
    return out.getvalue()


def tensors() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(head)) + head + b"\0" * 4


PICKLE = pickle.dumps(Code(), protocol=4)

REFUSED: dict[str, tuple[bytes, str]] = {
    "a pickle, ": (PICKLE, "cl.register"),
    "PyTorch: a pickle": (zipped(**{"m__data.pkl": PICKLE, "m__version": b"3"}), "torch.onnx"),
    "TorchScript": (zipped(**{"m__constants.pkl": b"", "m__code__m.py": b""}), "torch.onnx"),
    "archive of Keras": (zipped(**{"config.json": b"", "model.weights.h5": b""}), "tf2onnx"),
    "archive of skops": (zipped(**{"schema.json": b"{}"}), "cl.register"),
    "its a.npy is a NumPy array of objects": (zipped(**{"a.npy": array([Code()])}), "ONNX"),
    "NumPy array of objects": (array([Code()]), "ONNX"),
    "an array of NumPy": (array([1.0]), "ONNX"),
    "tar archive: its w.pkl is a pickle": (tarred("w.pkl", PICKLE), "cl.register"),
    "compressed by gzip: inside is a tar archive: its x is a pickle": (
        gzip.compress(tarred("x", PICKLE)),
        "cl.register",
    ),
    "by zlib: inside is a pickle": (zlib.compress(PICKLE), "cl.register"),
    "by bzip2: inside is a pickle": (bz2.compress(PICKLE), "cl.register"),
    "by xz: inside is a pickle": (lzma.compress(PICKLE), "cl.register"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 80, "tf2onnx"),
    "GGUF": (b"GGUF\x03\0\0\0", "ONNX"),
    "safe to load, but weights alone": (tensors(), "ONNX"),
    "SavedModel of TensorFlow": (b"\x08\x01\x12\x10\n\x07\n\x05serve" + b"\0" * 9, "tf2onnx"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + b"\0" * 40, "tf2onnx"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "lfs"),
    "a page of HTML": (b"<!DOCTYPE html><html>", "download"),
    "a file compressed by gzip": (gzip.compress(b"tree\nnum_class=1\n"), "Unpack"),
    "neither an ONNX model": (b"", "ONNX"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_named_with_the_way_out(what: str, tmp_path: Path) -> None:
    data, way = REFUSED[what]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(NotSupported) as told:
        convert_model(path)
    assert what in told.value.message
    assert way in (told.value.fix or "")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("make", [Code, lambda: {"a": [1, 2.5, None]}, lambda: [b"x", "text"]])
def test_pickles_of_every_protocol_are_known(protocol: int, make: Callable[[], object]) -> None:
    found = formats.unsafe_file(pickle.dumps(make(), protocol=protocol))
    assert found is not None
    assert "a pickle" in found.what


@given(st.binary(max_size=400))
def test_any_bytes_are_judged_without_an_error(data: bytes) -> None:
    formats.unsafe_file(data)
    for packed in (gzip.compress(data), zipped(member=data), b"PK\x03\x04" + data, b"(" + data):
        formats.unsafe_file(packed)
