"""What is in memory is counted exactly, and the least recently used goes first."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from clewline.serve.model_cache.cache import REVISION_BYTES, ModelCache


class Loaded:
    """A loaded revision, as far as its memory goes."""

    def __init__(
        self, models: Mapping[str, int], *, pinned: bool = False, busy: bool = False
    ) -> None:
        self.models = models
        self.pinned = pinned
        self.busy = busy


def room_for(count: int, size: int = 1000) -> ModelCache:
    return ModelCache(count * (REVISION_BYTES + size))


def test_the_least_recently_used_goes_first() -> None:
    cache = room_for(2)
    first, second, third = (Loaded({f"m@{i}": 1000}) for i in range(3))
    for loaded in (first, second):
        cache.add(loaded)
        assert cache.evict(loaded) == []
    cache.used(first)
    cache.add(third)
    assert cache.evict(third) == [second]


def test_what_is_pinned_busy_or_just_loaded_stays() -> None:
    cache = room_for(0)
    pinned, busy = Loaded({"a@1": 1}, pinned=True), Loaded({"b@1": 1}, busy=True)
    fresh = Loaded({"c@1": 1})
    for loaded in (pinned, busy, fresh):
        cache.add(loaded)
    assert cache.evict(fresh) == []
    assert len(cache) == 3


def test_a_model_that_two_share_counts_once_and_goes_with_the_last() -> None:
    cache = room_for(10)
    one, other = Loaded({"m@1": 5000}), Loaded({"m@1": 5000, "n@1": 7})
    cache.add(one)
    cache.add(other)
    assert cache.bytes == 2 * REVISION_BYTES + 5007
    cache.remove(one)
    assert cache.bytes == REVISION_BYTES + 5007


@given(st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 4), max_size=3)), max_size=40))
def test_whatever_comes_and_goes_the_sum_is_that_of_what_is_there(
    steps: list[tuple[int, set[int]]],
) -> None:
    cache = ModelCache(4 * REVISION_BYTES)
    there: dict[int, Loaded] = {}
    for place, models in steps:
        if place in there:
            cache.remove(there.pop(place))
        loaded = there[place] = Loaded({f"m@{model}": 100 + model for model in models})
        cache.add(loaded)
        gone = cache.evict(loaded)
        there = {key: value for key, value in there.items() if value not in gone}
        unique = {model: size for each in there.values() for model, size in each.models.items()}
        assert cache.bytes == len(there) * REVISION_BYTES + sum(unique.values())
        assert cache.bytes <= cache.budget_bytes or len(there) == 1
