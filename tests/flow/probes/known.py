"""
The probes that are known to fail, each with its kind; a mark that is not needed fails too.

- a: names and files inside strings; b: readers bound before the watch; c: readers in
  compiled code; d: child processes; e: network and clock; f: modules imported before;
- g: reflection, file metadata and what is not content; alarm: runs again without need;
- limit: docs/caching.md states it.
"""

KNOWN: dict[str, str] = {
    "library-option-changed": "limit",
    "polars-sorted-flag": "limit",
}
