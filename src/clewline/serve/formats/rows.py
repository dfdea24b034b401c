"""
A JSON array of rows, without an envelope: a piece of a streamed request, as the log keeps it.

The detail is a JSON array of whom the rows are about, one text a row, or nothing.
"""

from __future__ import annotations

import msgspec

from clewline.errors import MalformedInput
from clewline.serve.formats import RequestRows, too_many_rows
from clewline.serve.formats.columns import with_entities
from clewline.signature.check import Checker


class JsonRows:
    """Reads `[{…}, …]`."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of an array."""
        if not body.lstrip(b" \t\r\n").startswith(b"["):
            raise MalformedInput("The body is no JSON array.", "Send [{…}, …].")
        rows = checker.decode(body)
        if len(rows) > max_rows:
            raise too_many_rows(max_rows)
        entities = msgspec.json.decode(detail, type=list[str]) if detail else None
        return with_entities(rows, entities)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object."""
        return [bytes(row) for row in msgspec.json.decode(body, type=list[msgspec.Raw])]


FORMAT = JsonRows()
