"""
What a body format is, and how one is found by its name.

A format knows no HTTP and no gRPC: a protocol says which format a body is in, and the log
keeps the name, so that a replay reads the same bytes by the same rules. Formats are found
through the entry point group `clewline.formats`, ours included.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import msgspec

from clewline.entry_points import load_entry_point
from clewline.errors import BodyTooLarge, IntegrityError, NotSupported, TooManyRows
from clewline.signature.check import Checker, Row
from clewline.signature.json_rows import MOST_VALUES, count_values

GROUP = "clewline.formats"
"""The entry point group: name of a format → an object with the methods of `BodyFormat`."""
JSON = "json"
"""`{"rows": […]}` or one bare row: read by `clewline.serve.json_reader`, the quick path."""
JSON_ROWS = "json-rows"
"""A JSON array of rows: a piece of a streamed request, as the log keeps it."""
JSON_COLUMNS = "json-columns"
"""`{"columns": {"FIELD": […], …}}`."""
CSV = "csv"
"""Comma-separated values with a header line."""
ARROW = "arrow"
"""Arrow IPC, a stream or a file."""
PARQUET = "parquet"
READ_ON_THREAD = frozenset({ARROW, PARQUET})
"""Formats that are always read on a thread, because the first body imports a large library."""


class RequestRows(msgspec.Struct, frozen=True, gc=False):
    """The rows of one request, decoded and checked."""

    rows: list[Row]  # of the checker's row type, one or more
    entities: list[str] | None = None  # one per row


class BodyFormat(Protocol):
    """Reads one format. Stateless; called from any thread."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """
        Read and check the rows of a body.

        Args:
            body: The bytes, decompressed.
            detail: What the format must know beside the body, such as a charset; often empty.
            checker: Checks the rows against a signature.
            max_rows: The most rows that are accepted.

        Raises:
            MalformedInput: The bytes are not of this format, or hold no rows.
            TooManyRows: There are more than `max_rows` rows.
            BodyTooLarge: Decoding would take more memory or work than one request may.
            InvalidInput: The signature refuses rows; `fields` names each one.
        """

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Return each row as a JSON object, without a signature, for `why` and lists."""


@cache
def load_format(name: str) -> BodyFormat:
    """
    Return the format of this name.

    Raises:
        IntegrityError: No installed distribution offers it.
    """
    try:
        found: BodyFormat = load_entry_point(GROUP, name)
    except NotSupported as error:
        raise IntegrityError(
            f"The body has the unknown format {name!r}. {error.args[0]}",
            "Read it with the version of clewline, and the plug-ins, that logged it.",
        ) from error
    return found


def too_many_rows(max_rows: int) -> TooManyRows:
    """Return the error for a request of more than `max_rows` rows."""
    return TooManyRows(
        f"There are more than {max_rows} rows in the request.", "Send them in several requests."
    )


def require_few_values(body: bytes) -> None:
    """
    Accept JSON that is read in one go.

    Raises:
        BodyTooLarge: It has more than `MOST_VALUES` values; commas in strings count too.
    """
    if len(body) > MOST_VALUES and (values := count_values(body)) > MOST_VALUES:
        raise BodyTooLarge(
            f"The JSON has {values} values; the limit is {MOST_VALUES}.",
            "Send fewer rows at once.",
        )
