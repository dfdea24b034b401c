"""An artifact: rows of a table by page, a figure, text, files; and who made and took it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from clewline.console.page import Download, PageAnswer, PageRequest, PageRoute, View
from clewline.console.rendering import line_address
from clewline.console.table import Column, Table, offset_source
from clewline.flow.artifact_preview import ArtifactPreview, preview_artifact
from clewline.store.edges import steps_that_made, steps_that_took
from clewline.store.records import Artifact
from clewline.store.ref import find_artifact

COLUMNS_SHOWN = 200
STEPS_SHOWN = 20


class ArtifactsPage:
    """What an artifact holds."""

    name = "artifacts"
    title = "Artifact"
    place = None

    def routes(self) -> Sequence[PageRoute]:
        """Return its addresses."""
        return (
            PageRoute("/artifacts/{digest}", show_artifact),
            PageRoute("/artifacts/{digest}/content", give_content),
        )


def show_artifact(request: PageRequest) -> PageAnswer:
    """Show what an artifact holds, as much as a person looks at."""
    artifact = _artifact(request)
    preview = preview_artifact(artifact, request.store.blobs)
    made = steps_that_made(request.store.catalog, artifact.digest)
    took = steps_that_took(request.store.catalog, artifact.digest)
    return View(
        "artifacts.html",
        title=f"{artifact.kind.capitalize()} {artifact.digest[:12]}",
        values={
            "artifact": artifact,
            "preview": preview,
            "table": _table(request, preview) if preview.columns else None,
            "content": f"/artifacts/{quote(artifact.digest, safe='')}/content",
            "line": line_address(artifact.digest),
            "made": [_step_link(each) for each in made[:STEPS_SHOWN]],
            "took": [_step_link(each) for each in took[:STEPS_SHOWN]],
            "made_count": len(made),
            "took_count": len(took),
        },
    )


def give_content(request: PageRequest) -> PageAnswer:
    """Give the bytes of an artifact as they are stored."""
    artifact = _artifact(request)
    content = request.store.blobs.get(artifact.blob)
    name = str(artifact.meta.get("name") or f"{artifact.digest[:12]}.{artifact.format}")
    media_type = "image/png" if artifact.kind == "figure" else "application/octet-stream"
    return Download(name, media_type, content)


def _artifact(request: PageRequest) -> Artifact:
    return find_artifact(request.store.catalog, request.path["digest"])


def _table(request: PageRequest, preview: ArtifactPreview) -> Table:
    names = [name for name, _ in preview.columns]

    def rows(offset: int, limit: int, sort: str) -> list[Mapping[str, Any]]:
        found = preview.rows(offset, limit)
        return [
            {"row": offset + place, **dict(zip(names, row, strict=True))}
            for place, row in enumerate(found)
        ]

    return Table(
        "rows",
        (
            Column("row", "Row"),
            *(Column(name, name) for name in names[:COLUMNS_SHOWN] if name != "row"),
        ),
        offset_source(rows, preview.count),
        request,
        empty="It has no rows.",
        caption="Rows of the artifact",
    )


def _step_link(step_id: str) -> tuple[str, str]:
    run, _, label = step_id.partition("/")
    return step_id, f"/runs/{quote(run, safe='')}/steps/{quote(label, safe='')}"
