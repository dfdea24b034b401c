"""Changes of live revisions are seen once each, whatever their clocks say."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clewline.errors import StoreNewer
from clewline.serve import catalog_follower
from clewline.serve.catalog_follower import PAGE, CatalogFollower
from clewline.store import reader
from clewline.store.records import LiveRevision, Revision
from clewline.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path) as store:
        yield store


def move(store: Store, *endpoints: str, number: int = 1, moved: float = 1.0) -> None:
    with store.catalog.transaction() as transaction:
        for name in endpoints:
            transaction.add(
                Revision(
                    endpoint=name, number=number, spec={}, models={}, packages={}, created=moved
                )
            )
            transaction.replace(LiveRevision(endpoint=name, number=number, moved=moved))


def seen(follower: CatalogFollower) -> dict[str, int]:
    return {live.endpoint: live.number for live in follower.changes()}


def test_each_change_is_told_once(store: Store) -> None:
    move(store, "a", "b")
    follower = CatalogFollower(store, None)
    assert seen(follower) == {"a": 1, "b": 1}
    assert seen(follower) == {}
    move(store, "b", number=2, moved=2.0)
    assert seen(follower) == {"b": 2}
    assert seen(follower) == {}


def test_changes_of_the_same_moment_are_all_seen(store: Store) -> None:
    follower = CatalogFollower(store, None)
    assert seen(follower) == {}
    move(store, "a", moved=5.0)
    assert seen(follower) == {"a": 1}
    move(store, "b", moved=5.0)
    assert seen(follower) == {"b": 1}


def test_more_changes_than_a_page_are_all_seen(store: Store) -> None:
    names = [f"e{i:03}" for i in range(3 * PAGE)]
    move(store, *names)
    follower = CatalogFollower(store, None)
    assert len(seen(follower)) == 3 * PAGE
    move(store, *names, number=2, moved=2.0)
    assert len(seen(follower)) == 3 * PAGE


def test_a_clock_that_was_set_back_hides_nothing_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"e{i:03}" for i in range(2 * PAGE)]
    move(store, *names, moved=1000.0)
    follower = CatalogFollower(store, None)
    seen(follower)
    move(store, "e000", number=2, moved=1.0)
    assert seen(follower) == {}, "it is beyond the newest page"
    later = time.monotonic() + catalog_follower.ALL_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert seen(follower) == {"e000": 2}


def test_only_the_endpoints_that_were_named_are_followed(store: Store) -> None:
    move(store, "a", "b")
    assert seen(CatalogFollower(store, {"b"})) == {"b": 1}


def test_a_catalog_that_a_newer_clewline_has_upgraded_is_refused(store: Store) -> None:
    follower = CatalogFollower(store, None)
    follower.changes()
    with sqlite3.connect(store.root / reader.FILE) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    other.close()
    with pytest.raises(StoreNewer):
        follower.changes()
