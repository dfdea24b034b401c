"""
The log of a server, on stderr: one line a message, in one format.

    2026-11-21T06:25:00.123Z WARNING [worker 1] clewline.serve.batcher: income#3: rows could …

ERROR: something was not answered, or is not served. WARNING: it will be so, if nobody
looks. INFO: who answers, from when on. A traceback follows its message.
"""

from __future__ import annotations

import logging
import time

QUIET = logging.WARNING
TOLD = ("clewline.protocols", "clewline.serve")
"""Whose INFO is shown: swaps, certificates."""


def configure_logging(worker: int | None = None) -> None:
    """
    Write messages to stderr.

    Args:
        worker: The seat of this worker, where there are several.
    """
    which = "" if worker is None else f" [worker {worker}]"
    handler = logging.StreamHandler()
    handler.setFormatter(_Line(which))
    logging.basicConfig(level=QUIET, handlers=[handler])
    for name in TOLD:
        logging.getLogger(name).setLevel(logging.INFO)


class _Line(logging.Formatter):
    """Times in UTC, to the millisecond, as ISO 8601 has them."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, which: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s{which} %(name)s: %(message)s")
