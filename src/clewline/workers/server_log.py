"""
The server's log on stderr: one line a message, in one format.

    2026-11-21T06:25:00.123Z WARNING [worker 1] clewline.serve.batcher: income#3: rows could …

ERROR: something was not answered, logged or loaded. WARNING: it will come to that. INFO:
which revision answers. A traceback follows its message.
"""

from __future__ import annotations

import logging
import time

INFORMATIVE = ("clewline.protocols", "clewline.serve", "clewline.workers")
"""Loggers of which INFO is shown too: swaps, certificates."""


def configure_logging(process: str = "") -> None:
    """
    Write messages to stderr.

    Args:
        process: Which one of several it is: `worker 1`, `explaining`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_UtcFormatter(f" [{process}]" if process else ""))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in INFORMATIVE:
        logging.getLogger(name).setLevel(logging.INFO)


class _UtcFormatter(logging.Formatter):
    """Times in UTC, to the millisecond, as ISO 8601 has them."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s{process} %(name)s: %(message)s")
