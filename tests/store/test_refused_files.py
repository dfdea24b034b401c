"""Each file of a store that the system does not open is reported as what the system says."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support import forbidden, no_more_files

from clewline.errors import ClewlineError, Fault, Overloaded, StoreReadOnly
from clewline.store.blobs import LARGE_OVER
from clewline.store.disk import known_error
from clewline.store.locks import hold_lock
from clewline.store.records import Run
from clewline.store.store import Store

RUN = Run(id="a" * 12, pipeline="income", status="running", started=1.0)
SMALL, LARGE = b"small", bytes(LARGE_OVER + 1)

Refusal = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store in which every file has been opened once: what is imported late is there."""
    root = tmp_path / "store"
    with Store.create(root) as made:
        made.record(RUN)
        for data in (SMALL, LARGE):
            made.blobs.put(data)
        with hold_lock(root / "lock", timeout_s=1):
            pass
        yield made


@pytest.fixture(params=["too many", "forbidden"])
def refusal(request: pytest.FixtureRequest, tmp_path: Path) -> Refusal:
    return no_more_files if request.param == "too many" else lambda: forbidden(tmp_path)


def put_large(store: Store) -> None:
    store.blobs.put(LARGE + secrets.token_bytes(8))


def get_large(store: Store) -> None:
    store.blobs.get(store.blobs.put(LARGE))


def hold(store: Store) -> None:
    with hold_lock(store.root / "lock", timeout_s=1):
        pass


def put_small(store: Store) -> None:
    with Store.open(store.root) as another:
        another.blobs.put(b"another")


def read(store: Store) -> None:
    with Store.open(store.root, write=False) as another:
        another.catalog.get(Run, RUN.id)


def create(store: Store) -> None:
    Store.create(store.root.parent / "new").close()


@pytest.mark.parametrize("use", [put_large, get_large, hold, put_small, read, create])
def test_it_is_said_what_the_system_refused(
    store: Store, refusal: Refusal, use: Callable[[Store], None]
) -> None:
    use(store)
    with refusal(), pytest.raises(ClewlineError) as raised:
        use(store)
    is_limit = refusal is no_more_files
    assert isinstance(raised.value, Overloaded if is_limit else StoreReadOnly)
    assert ("Too many open files" if is_limit else "ermission denied") in str(raised.value)
    assert ("ulimit -n" if is_limit else "right to") in (raised.value.fix or "")
    use(store)  # and nothing was left half done


def test_an_unexpected_error_is_the_disks_or_else_what_the_caller_says() -> None:
    bug, ours = Fault("A bug."), Overloaded("Wait.")
    assert known_error(ours, bug) is ours
    for unexpected in (ValueError("no"), FileNotFoundError(errno.ENOENT, "No such file", "/x")):
        assert known_error(unexpected, bug) is bug
    found = known_error(OSError(errno.EMFILE, "Too many open files", "/x"), bug)
    assert isinstance(found, Overloaded)
    assert "/x cannot be opened" in found.message
