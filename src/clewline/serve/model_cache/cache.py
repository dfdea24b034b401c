"""The loaded revisions within a memory budget, and which of them go when it is spent."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Protocol

REVISION_BYTES = 48 << 10
"""Memory of a loaded revision beside its models: checker, decoders, batcher (measured)."""


class CachedRevision(Protocol):
    """A loaded revision, as the cache sees it."""

    @property
    def models(self) -> Mapping[str, int]:
        """Its models, `name@number` → bytes; shared by all revisions with them."""

    @property
    def pinned(self) -> bool:
        """Whether it must stay."""

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""


class ModelCache:
    """
    Loaded revisions, the least recently used first. Lives on the loop's thread.

    Args:
        budget_bytes: Memory of models and revisions together. Pinned and busy ones
            stay, even beyond it.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.bytes = 0
        self._order: OrderedDict[CachedRevision, None] = OrderedDict()
        self._users: Counter[str] = Counter()  # of a model
        self.used = self._order.move_to_end
        """Record that a revision is used now."""

    def __len__(self) -> int:
        return len(self._order)

    def add(self, revision: CachedRevision) -> None:
        """Add a loaded revision."""
        self._order[revision] = None
        self.bytes += REVISION_BYTES
        for model, size in revision.models.items():
            if not self._users[model]:
                self.bytes += size
            self._users[model] += 1

    def remove(self, revision: CachedRevision) -> None:
        """Remove a revision."""
        del self._order[revision]
        self.bytes -= REVISION_BYTES
        for model, size in revision.models.items():
            self._users[model] -= 1
            if not self._users[model]:
                del self._users[model]
                self.bytes -= size

    def evict(self, keep: CachedRevision) -> list[CachedRevision]:
        """Remove the least recently used until the budget holds, and return them; never `keep`."""
        evicted: list[CachedRevision] = []
        while self.bytes > self.budget_bytes:
            may_go = (r for r in self._order if not (r is keep or r.pinned or r.busy))
            if (oldest := next(may_go, None)) is None:
                break
            self.remove(oldest)
            evicted.append(oldest)
        return evicted
