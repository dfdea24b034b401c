"""
The probes that are known to fail, each with its kind; a mark that is not needed fails too.

- a: names and files inside strings; b: readers bound before the watch; c: readers in
  compiled code; d: child processes; e: network and clock; f: modules imported before;
- g: reflection, file metadata and what is not content; alarm: runs again without need;
- limit: docs/caching.md states it.
"""

KNOWN = {
    "polars-sql-of-a-local-of-the-pipeline": "a",
    "pandas-to-datetime-now": "e",
    "numpy-datetime64-now": "e",
    "environ-of-posix": "g",
    "user-by-getpass": "g",
    "time-zone": "g",
    "path-resolve-of-a-link": "g",
    "open-of-a-missing-file": "g",
    "decimal-context": "limit",
    "library-option-changed": "limit",
    "polars-sorted-flag": "limit",
}
