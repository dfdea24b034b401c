"""Which revisions went live in the catalog; cheap even with ten thousand endpoints."""

from __future__ import annotations

import time
from typing import Any

from clewline.store.records import LiveRevision
from clewline.store.rows import UnreadableRecord
from clewline.store.store import Store
from clewline.store.upgrade import is_current

PAGE = 64
"""Maximum changes that one query of the newest finds; if there are more, all are read."""
ALL_S = 10.0
"""Maximum delay of a change with an early time, as after a clock was set back."""


class CatalogFollower:
    """
    Follows the live revisions of a project. For one thread, always the same.

    Args:
        store: Has the catalog.
        names: Follow only these endpoints; None follows all.
    """

    def __init__(self, store: Store, names: set[str] | None) -> None:
        self._store = store
        self._names = names
        self.unreadable: dict[str, UnreadableRecord] = {}  # endpoints with a damaged record
        self._known: dict[str, LiveRevision] = {}
        self._version: tuple[int, int] | None = None  # of the data, as this thread counts
        self._all_due = 0.0
        self._owes_all = True  # something was written since all were read

    def changes(self) -> list[LiveRevision]:
        """
        Return what went live, was loaded or was unloaded since the last call; at first, everything.

        Raises:
            StoreNewer: A newer clewline has upgraded the catalog in the meantime.
        """
        catalog = self._store.catalog
        version = catalog.reader.data_version()
        if version != self._version:
            is_current(catalog.path)
            found = self._newest()
            self._version, self._owes_all = version, True
        else:
            found = []
        if self._owes_all and time.monotonic() >= self._all_due:
            found = self._fresh(self._read(limit=None))
            self._owes_all, self._all_due = False, time.monotonic() + ALL_S
        self._known |= {live.endpoint: live for live in found}
        return found

    def _newest(self) -> list[LiveRevision]:
        found = self._fresh(self._read(order="-moved", limit=PAGE))
        if len(found) == PAGE:
            self._all_due = 0.0
        return found

    def _read(self, **how: Any) -> list[LiveRevision]:
        unreadable: list[UnreadableRecord] = []
        found = self._store.catalog.find(LiveRevision, unreadable=unreadable, **how)
        for live in found:
            self.unreadable.pop(live.endpoint, None)
        for error in unreadable:
            (name,) = error.key
            if isinstance(name, str) and (self._names is None or name in self._names):
                self.unreadable[name] = error
                self._known.pop(name, None)  # so that it is a change when it is repaired
        return found

    def _fresh(self, lives: list[LiveRevision]) -> list[LiveRevision]:
        known, names = self._known, self._names
        return [
            live
            for live in lives
            if (names is None or live.endpoint in names) and known.get(live.endpoint) != live
        ]
