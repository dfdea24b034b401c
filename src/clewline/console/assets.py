"""The files that pages load: one style sheet, one script, and libraries; each under its digest."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from starlette.requests import Request
from starlette.responses import Response

from clewline.console.page import ConsolePage
from clewline.console.rendering import page_folder

FOLDER = Path(__file__).parent / "assets"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    compressed: bytes
    media_type: str
    digest: str


class Assets:
    """
    What the frame links to. The style and script of every page are joined to those of the frame.

    Args:
        pages: Whose `NAME.css` and `NAME.js` stand beside their modules.
    """

    def __init__(self, pages: Sequence[ConsolePage]) -> None:
        beside = [(page_folder(page), page.name) for page in pages]
        self._files = {
            f"console{ending}": _asset(
                [
                    FOLDER / f"console{ending}",
                    *(folder / f"{name}{ending}" for folder, name in beside),
                ]
            )
            for ending in (".css", ".js")
        }
        for path in sorted((FOLDER / "vendor").glob("*")):
            if path.suffix in MEDIA_TYPES:
                self._files[path.name] = _asset([path])
        self.links = {name: f"/assets/{file.digest}/{name}" for name, file in self._files.items()}

    async def answer(self, request: Request) -> Response:
        """Answer with a file; its address changes with its content, so it is kept for ever."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            return Response(status_code=404)
        headers = {
            "Cache-Control": FOREVER,
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(file.compressed, 200, headers, file.media_type)
        return Response(file.content, 200, headers, file.media_type)


def _asset(paths: Sequence[Path]) -> _Asset:
    parts = [path.read_bytes() for path in paths if path.is_file()]
    if len(parts) > 1 and paths[0].suffix == ".js":
        parts = [b"{\n" + part + b"\n}" for part in parts]  # the names of a page are its own
    content = b"\n".join(parts)
    return _Asset(
        content,
        gzip.compress(content, 9, mtime=0),
        MEDIA_TYPES[paths[0].suffix],
        blake3(content).hexdigest()[:16],
    )
