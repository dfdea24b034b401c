"""Which endpoints are in memory: a budget in bytes, and who goes when it is spent."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Protocol

REVISION_BYTES = 48 << 10
"""What a loaded revision costs beside its models: checker, decoders, lane, counts (measured)."""


class CachedRevision(Protocol):
    """A loaded revision, as far as its memory goes."""

    @property
    def models(self) -> Mapping[str, int]:
        """Its models, `name@number` → bytes; shared by all revisions that name them."""

    @property
    def pinned(self) -> bool:
        """Tell whether it must stay."""

    @property
    def busy(self) -> bool:
        """Tell whether requests are under way."""


class ModelCache:
    """
    Loaded revisions, the least recently used first. Lives on the loop's thread.

    Args:
        budget_bytes: What models and revisions may cost together. Those that are
            pinned or busy stay, even above it.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.bytes = 0
        self.evictions = 0
        self._order: OrderedDict[CachedRevision, None] = OrderedDict()
        self._users: Counter[str] = Counter()  # of a model
        self.used = self._order.move_to_end
        """Say that one is used now."""

    def __len__(self) -> int:
        return len(self._order)

    def add(self, resident: CachedRevision) -> None:
        """Count one that was loaded."""
        self._order[resident] = None
        self.bytes += REVISION_BYTES
        for model, size in resident.models.items():
            if not self._users[model]:
                self.bytes += size
            self._users[model] += 1

    def remove(self, resident: CachedRevision) -> None:
        """Count one no more."""
        del self._order[resident]
        self.bytes -= REVISION_BYTES
        for model, size in resident.models.items():
            self._users[model] -= 1
            if not self._users[model]:
                del self._users[model]
                self.bytes -= size

    def evict(self, keep: CachedRevision) -> list[CachedRevision]:
        """Remove the least recently used until the budget holds, and give them; never `keep`."""
        if self.bytes <= self.budget_bytes:
            return []
        evicted: list[CachedRevision] = []
        while self.bytes > self.budget_bytes and (oldest := self._oldest(keep)) is not None:
            self.remove(oldest)
            evicted.append(oldest)
        self.evictions += len(evicted)
        return evicted

    def _oldest(self, keep: CachedRevision) -> CachedRevision | None:
        """Find the least recently used that may go."""
        for resident in self._order:
            if resident is not keep and not resident.pinned and not resident.busy:
                return resident
        return None
