"""Inference requests with raw tensors behind the JSON; `detail` is the length of the JSON."""

from __future__ import annotations

from clewline.serve.formats import Rows
from clewline.serve.formats.oip import objects, read
from clewline.serve.formats.oip_request import exact, header_length
from clewline.signature.check import Checker


class OipBinaryRequests:
    """Reads JSON of `detail` bytes, and the raw tensors that follow it."""

    def rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> Rows:
        """Read and check the rows of a request."""
        return read(body, header_length(detail, body), checker, max_rows)

    def inputs(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object of what its tensors hold."""
        return objects(exact(body, header_length(detail, body)))


FORMAT = OipBinaryRequests()
