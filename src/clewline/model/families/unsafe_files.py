"""Files that must not be loaded, recognized by their content and never by their name."""

from __future__ import annotations

import ast
import bz2
import io
import lzma
import pickletools
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

ONNX = "Export the model to ONNX, or save a booster in its library's own format."
TORCH = "Load it where it is trusted, and export it with torch.onnx.export(…)."
KERAS = "Export it with tf2onnx or keras2onnx: python -m tf2onnx.convert --output model.onnx."
ESTIMATOR = "Load it where it is trusted, and register the estimator by cl.register."
INSPECTED_BYTES = 1 << 20
"""Bytes that are looked at inside of what is compressed, and of each member of an archive."""

MAX_MEMBERS = 200
MAX_DEPTH = 3
MAX_OPCODES = 100_000


class UnsafeFile(NamedTuple):
    """A file that must not be loaded: what it is, and the way out."""

    what: str
    fix: str = ONNX


_PICKLE = "which runs code when it is loaded"
_STARTS = (
    (
        b"\x89HDF\r\n\x1a\n",
        UnsafeFile("HDF5, which Keras saves and whose layers may hold code", KERAS),
    ),
    (b"GGUF", UnsafeFile("GGUF, which holds the weights of a language model for llama.cpp")),
    (b"ggml", UnsafeFile("GGML, which holds the weights of a language model")),
    (b"lmgg", UnsafeFile("GGML, which holds the weights of a language model")),
    (
        b"version https://git-lfs",
        UnsafeFile(
            "a pointer of Git LFS, not the model itself",
            "Fetch the file: git lfs pull, or take the hub's download link.",
        ),
    ),
    (b"<?xml", UnsafeFile("XML; PMML has no runtime here")),
)
_PACKED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"x", "zlib"))


def unsafe_file(data: bytes, depth: int = 0) -> UnsafeFile | None:
    """
    Say what bytes are that are no model which we load; None where they may be one.

    Nothing is loaded or run: opcodes of pickles are read, archives are listed, and what is
    compressed is opened up to a bound.
    """
    for start, known in _STARTS:
        if data.startswith(start):
            return known
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(data, depth)
    if data[257:262] == b"ustar":
        return _members("a tar archive", _tarred(data), depth)
    for start, name in _PACKED:
        if data.startswith(start) and (inner := _unpacked(data, name)):
            found = unsafe_file(inner, depth + 1) if depth < MAX_DEPTH else None
            if found is not None:
                return UnsafeFile(f"compressed by {name}: inside is {found.what}", found.fix)
            fix = "Unpack it, and import what was inside."
            return UnsafeFile(f"a file compressed by {name}", fix)
    return _numpy(data) or _weights(data) or _pickle(data)


def _unpacked(data: bytes, name: str) -> bytes:
    """Return the first decompressed bytes; none if the bytes are not compressed so."""
    try:
        match name:
            case "gzip":
                return zlib.decompressobj(31).decompress(data, INSPECTED_BYTES)
            case "zlib":
                return zlib.decompressobj().decompress(data, INSPECTED_BYTES)
            case "bzip2":
                return bz2.BZ2Decompressor().decompress(data, INSPECTED_BYTES)
            case _:
                return lzma.LZMADecompressor(memlimit=1 << 28).decompress(data, INSPECTED_BYTES)
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        return b""


# ── archives ────────────────────────────────────────────────────────────────


def _zip(data: bytes, depth: int) -> UnsafeFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError):
        return UnsafeFile("a ZIP archive that is damaged", "Fetch it again.")
    names = archive.namelist()
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends or any("/code/" in name for name in names):
        return UnsafeFile(f"TorchScript: compiled code of Python and pickles, {_PICKLE}", TORCH)
    if "data.pkl" in ends:
        return UnsafeFile(f"a ZIP archive of PyTorch: a pickle, {_PICKLE}", TORCH)
    if {"config.json", "model.weights.h5"} <= ends:
        return UnsafeFile("a ZIP archive of Keras, whose layers may hold code", KERAS)
    if "saved_model.pb" in ends:
        return UnsafeFile("a SavedModel of TensorFlow in a ZIP archive", KERAS)
    if "schema.json" in ends:
        return UnsafeFile("a ZIP archive of skops", ESTIMATOR)
    return _members("a ZIP archive", _zipped(archive), depth)


def _zipped(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    for info in archive.infolist()[:MAX_MEMBERS]:
        try:
            with archive.open(info) as member:
                yield info.filename, member.read(INSPECTED_BYTES)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, OSError):
            continue  # the archive is refused anyway


def _tarred(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for _, info in zip(range(MAX_MEMBERS), archive, strict=False):
                if info.isfile() and (member := archive.extractfile(info)) is not None:
                    yield info.name, member.read(INSPECTED_BYTES)
    except (tarfile.TarError, EOFError):
        return


def _members(what: str, members: Iterator[tuple[str, bytes]], depth: int) -> UnsafeFile:
    for name, data in members:
        if name.rpartition("/")[2] == "saved_model.pb":
            return UnsafeFile(f"{what} with a SavedModel of TensorFlow", KERAS)
        found = unsafe_file(data, depth + 1) if depth < MAX_DEPTH else None
        if found is not None:
            return UnsafeFile(f"{what}: its {name} is {found.what}", found.fix)
    return UnsafeFile(what, "Unpack it, and import the model's own file.")


# ── single formats ──────────────────────────────────────────────────────────


def _numpy(data: bytes) -> UnsafeFile | None:
    if not data.startswith(b"\x93NUMPY"):
        return None
    wide = data[6:7] != b"\x01"
    begin = 12 if wide else 10
    length = int.from_bytes(data[8:begin], "little")
    try:
        header = ast.literal_eval(data[begin : begin + length].decode("latin-1").strip())
        has_objects = "O" in str(header["descr"])
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        has_objects = False
    if has_objects:
        return UnsafeFile(f"a NumPy array of objects: a pickle, {_PICKLE}")
    return UnsafeFile("an array of NumPy, without a graph that computes")


def _weights(data: bytes) -> UnsafeFile | None:
    length = int.from_bytes(data[:8], "little")
    if len(data) > 9 and 2 <= length <= 100 << 20 and data[8:10] in (b'{"', b"{}", b"{ "):
        return UnsafeFile(
            "safetensors: safe to load, but weights alone, without the graph that computes"
        )
    if data[4:8] == b"TFL3":
        return UnsafeFile("TensorFlow Lite, which has no runtime here", KERAS)
    if data.startswith(b"\x08\x01\x12") and (b"saved_model" in data or b"\n\x05serve" in data):
        return UnsafeFile("a SavedModel of TensorFlow, a graph without its variables", KERAS)
    if data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return UnsafeFile("a page of HTML, not a model", "Take the file's own download link.")
    return None


def _pickle(data: bytes) -> UnsafeFile | None:
    """Recognize pickles: from protocol 2 on by their first bytes, older ones by opcodes."""
    is_marked = data[:1] == b"\x80" and data[1:2] and data[1] <= 5
    if not is_marked:
        if data[:1] not in b"(cN]}IJKLFGSTUVX)\x88\x89i" or not data:
            return None
        count, last = 0, ""
        try:
            for opcode, _, _ in pickletools.genops(io.BytesIO(data)):
                count, last = count + 1, opcode.name
                if count >= MAX_OPCODES:
                    break
            is_pickle = count >= MAX_OPCODES or (count > 1 and last == "STOP")
        except Exception:  # pickletools passes on any error of its argument readers
            is_pickle = count > 50 or b"c__builtin__\n" in data[:INSPECTED_BYTES]
        if not is_pickle:
            return None
    if b"torch" in data[:INSPECTED_BYTES] or data[2:12] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8":
        return UnsafeFile(f"a pickle of PyTorch, {_PICKLE}", TORCH)
    return UnsafeFile(f"a pickle, {_PICKLE}", f"{ESTIMATOR} Or export it to ONNX.")
