"""
The formats that rows come in: from the bytes of a body to checked rows.

Each format is a module here, imported when it is first asked for. It knows no
HTTP and no gRPC: a protocol says which format a body is in, and the log keeps
the name, so that a replay reads the same bytes by the same rules.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Protocol

import msgspec

from clewline.errors import IntegrityError, TooManyRows
from clewline.signature.check import Checker, Row

JSON = "json"
"""`{"rows": […]}` or one bare row: read by `clewline.serve.json_reader`, the quick path."""
JSON_ROWS = "json-rows"
"""A JSON array of rows: what the log keeps of a piece of a streamed request."""
OIP = "oip"
"""An inference request of the Open Inference Protocol, in JSON alone."""
OIP_BINARY = "oip-binary"
"""One with raw tensors behind the JSON, whose length is the detail."""
MLFLOW = "mlflow"
"""A request of MLflow's scoring protocol in JSON."""
JSON_COLUMNS = "json-columns"
"""`{"columns": {"FIELD": […], …}}`."""
CSV = "csv"
"""Comma-separated values with a header; the detail says charset and column of entities."""
ARROW = "arrow"
"""Arrow IPC, a stream or a file."""
PARQUET = "parquet"

MODULES: dict[str, str] = {
    JSON_COLUMNS: "json_columns",
    CSV: "csv",
    ARROW: "arrow",
    PARQUET: "parquet",
    JSON_ROWS: "rows",
    OIP: "oip",
    OIP_BINARY: "oip_binary",
    MLFLOW: "mlflow",
}
"""Name of a format → the module here that has its `FORMAT`."""
HEAVY = frozenset({ARROW, PARQUET})
"""Formats whose first reading imports a large library: always read on a thread."""


class Rows(msgspec.Struct, frozen=True, gc=False):
    """The rows of one request, each decoded and checked by itself."""

    rows: list[Row]  # of the checker's row type, one or more
    entities: list[str] | None = None  # one a row


class Format(Protocol):
    """Reads one format. Stateless; called from any thread."""

    def rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> Rows:
        """
        Read and check the rows of a body.

        Raises:
            MalformedInput: The bytes are not of this format, or hold no rows.
            TooManyRows: There are more than `max_rows`.
            InvalidInput: Rows that the signature refuses; names every one.
        """

    def inputs(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object, by no signature: for `why` and lists."""


@cache
def named(name: str) -> Format:
    """
    Give the format of a name.

    Raises:
        IntegrityError: There is none; a newer clewline wrote this log.
    """
    if name not in MODULES:
        raise IntegrityError(
            f"The format {name!r} is not known (known: {', '.join(sorted(MODULES))}).",
            "Read it with the clewline that wrote it.",
        )
    found: Format = import_module(f"{__name__}.{MODULES[name]}").FORMAT
    return found


def too_many(max_rows: int) -> TooManyRows:
    """Make the error that every format raises for more than `max_rows` rows."""
    return TooManyRows(
        f"There are more than {max_rows} rows in the request.", "Send them in several requests."
    )
