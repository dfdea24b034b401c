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
        self.evictions = 0
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
        if self.bytes <= self.budget_bytes:
            return []
        evicted: list[CachedRevision] = []
        while self.bytes > self.budget_bytes and (oldest := self._oldest(keep)) is not None:
            self.remove(oldest)
            evicted.append(oldest)
        self.evictions += len(evicted)
        return evicted

    def _oldest(self, keep: CachedRevision) -> CachedRevision | None:
        """Find the least recently used revision that may go."""
        for revision in self._order:
            if revision is not keep and not revision.pinned and not revision.busy:
                return revision
        return None
