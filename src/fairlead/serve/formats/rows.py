"""A JSON array of rows, without an envelope: a piece of a streamed request, as the log keeps it."""

from __future__ import annotations

import msgspec

from fairlead.errors import MalformedInput
from fairlead.serve.formats import Rows, too_many
from fairlead.signature.check import Checker


class JsonRows:
    """Reads `[{…}, …]`."""

    def rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> Rows:
        """Read and check the rows of an array."""
        if not body.lstrip(b" \t\r\n").startswith(b"["):
            raise MalformedInput("The body is no JSON array.", "Send [{…}, …].")
        rows = checker.decode(body)
        if len(rows) > max_rows:
            raise too_many(max_rows)
        return Rows(rows)

    def inputs(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object."""
        return [bytes(row) for row in msgspec.json.decode(body, type=list[msgspec.Raw])]


FORMAT = JsonRows()
