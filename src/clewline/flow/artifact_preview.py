"""What an artifact holds, as much as a person looks at: rows of a table, text, a picture, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clewline.flow import values
from clewline.flow.values.file_trees import decode_tree
from clewline.store.blobs import BlobStore
from clewline.store.records import Artifact

READ_BYTES = 64 << 20
"""A larger artifact is not read for a preview."""
TEXT_CHARACTERS = 100_000
"""Of a text that is shown."""

PreviewKind = Literal["table", "text", "picture", "files", "nothing"]


@dataclass(frozen=True, slots=True)
class ArtifactPreview:
    """
    What is shown of an artifact.

    Args:
        kind: What it is shown as.
        sentence: What is shown, and what is not.
        columns: Names of the columns of a table, each once, with their types.
        count: Rows of a table, or files of a folder.
        rows: Offset and limit → rows of a table, in the order of the columns.
        text: Of a text.
    """

    kind: PreviewKind
    sentence: str
    columns: Sequence[tuple[str, str]] = ()
    count: int = 0
    rows: Callable[[int, int], Sequence[Sequence[Any]]] = lambda offset, limit: ()
    text: str = ""


def preview_artifact(artifact: Artifact, blobs: BlobStore) -> ArtifactPreview:
    """
    Read what a person looks at of an artifact.

    Raises:
        IntegrityError: Its bytes are damaged.
    """
    if artifact.size_bytes > READ_BYTES:
        return ArtifactPreview("nothing", "It is too large to be read for a preview.")
    if artifact.kind == "table":
        return _table_preview(values.load(artifact, blobs))
    if artifact.kind == "array":
        return _array_preview(values.load(artifact, blobs))
    if artifact.kind == "figure":
        return ArtifactPreview("picture", "The figure as it was drawn.")
    if artifact.format == "tree":
        return _tree_preview(blobs.get(artifact.blob))
    if artifact.kind == "json":
        written = json.dumps(json.loads(blobs.get(artifact.blob)), indent=2, ensure_ascii=False)
        return _text_preview(written, "The value as JSON.")
    if artifact.format == "file":
        return _file_preview(blobs.get(artifact.blob))
    return ArtifactPreview("nothing", f"A {artifact.kind} of the format {artifact.format}.")


def _table_preview(table: Any) -> ArtifactPreview:
    """Show a table or a column of Polars or pandas."""
    if type(table).__name__ == "Series":
        table = table.to_frame()
    names = _unique([str(name) for name in table.columns])
    columns = list(zip(names, map(str, table.dtypes), strict=True))
    count = len(table)

    def rows(offset: int, limit: int) -> Sequence[Sequence[Any]]:
        if hasattr(table, "iloc"):
            part = table.iloc[offset : offset + limit]
            return list(part.itertuples(index=False, name=None))
        return list(table.slice(offset, limit).rows())

    sentence = f"{count:,} rows of {len(columns):,} columns."
    return ArtifactPreview("table", sentence, columns, count, rows)


def _array_preview(array: Any) -> ArtifactPreview:
    sentence = f"An array of the shape {array.shape} of {array.dtype}."
    flat = array.reshape(1, 1) if array.ndim == 0 else array.reshape(array.shape[0], -1)
    columns = [(str(place), str(array.dtype)) for place in range(min(flat.shape[1], 100))]
    if len(columns) < flat.shape[1]:
        sentence += f" The first 100 of {flat.shape[1]:,} values of each row are shown."

    def rows(offset: int, limit: int) -> Sequence[Sequence[Any]]:
        found: list[list[Any]] = flat[offset : offset + limit, :100].tolist()
        return found

    return ArtifactPreview("table", sentence, columns, flat.shape[0], rows)


def _tree_preview(data: bytes) -> ArtifactPreview:
    files = list(decode_tree(data).files.items())
    columns = [("path", "text"), ("size", "bytes"), ("digest", "text")]

    def rows(offset: int, limit: int) -> Sequence[Sequence[Any]]:
        return [(path, entry.size, entry.digest) for path, entry in files[offset : offset + limit]]

    return ArtifactPreview("files", f"{len(files):,} files.", columns, len(files), rows)


def _file_preview(data: bytes) -> ArtifactPreview:
    try:
        return _text_preview(data.decode(), "The file is text.")
    except UnicodeDecodeError:
        return ArtifactPreview("nothing", "The file is not text.")


def _text_preview(text: str, sentence: str) -> ArtifactPreview:
    if len(text) > TEXT_CHARACTERS:
        sentence += f" The first {TEXT_CHARACTERS:,} of {len(text):,} characters are shown."
    return ArtifactPreview("text", sentence, text=text[:TEXT_CHARACTERS])


def _unique(names: Sequence[str]) -> list[str]:
    """Number names that occur again."""
    found: dict[str, None] = {}
    for place, name in enumerate(names):
        found[name if name not in found else f"{name} ({place + 1})"] = None
    return list(found)
