"""Versions come to be wholly, keep their numbers, and never change."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from clewline.errors import IntegrityError, InvalidConfig, NotFound, StoreFull, UsageError
from clewline.model import seal
from clewline.model.promote import promote
from clewline.model.registry import UNREGISTERED, Registry
from clewline.model.verify import verify
from clewline.project import Project
from clewline.store.records import ModelVersion
from clewline.store.store import Store

from .conftest import add, fork


def register_many(project: Project, start: int, count: int) -> None:
    with Store.open(project.store_root) as store:
        for number in range(start, start + count):
            add(Registry(project, store), b"%d" % number)


def numbers(registry: Registry) -> list[int]:
    return [version.number for version in registry.list("income", limit=None)]


def test_numbers_count_from_one_for_each_name(registry: Registry) -> None:
    assert [add(registry, b"a").number, add(registry, b"b").number] == [1, 2]
    assert add(registry, b"a", name="other").number == 1
    assert numbers(registry) == [2, 1]


def test_the_same_content_is_the_same_version(registry: Registry) -> None:
    first = add(registry, b"a", step_run="4f9a2c81d0be/03-register")
    add(registry, b"b")
    assert add(registry, b"a", step_run="0d61a7dd2f10/03-register") == first
    assert numbers(registry) == [2, 1]


def test_a_damaged_version_is_registered_again_under_the_next_number(registry: Registry) -> None:
    path = registry.folder(add(registry, b"a")) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"b")
    assert add(registry, b"a").number == 2
    assert add(registry, b"a").number == 2
    assert registry.open("income@2").files["model.onnx"] == b"a"


def test_a_version_is_found_by_number_alias_and_name(registry: Registry) -> None:
    first, second = add(registry, b"a"), add(registry, b"b")
    promote(registry, "income@1", "champion")
    assert registry.get("income@1") == first
    assert registry.get("income@champion") == first
    assert registry.get("income") == second
    assert registry.open("income@2").files["model.onnx"] == b"b"


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("incme", "Did you mean 'income'"),
        ("incme@1", "Did you mean 'income@1'"),
        ("income@7", "newest is income@1"),
        ("income@chmpion", "Did you mean 'income@champion'"),
    ],
)
def test_an_unknown_version_gets_the_nearest_name(registry: Registry, ref: str, says: str) -> None:
    add(registry, b"a")
    promote(registry, "income@1", "champion")
    with pytest.raises(NotFound, match=says):
        registry.get(ref)


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "a@1", "a#1", "ä", "a b", "x" * 65])
def test_a_name_that_is_no_name_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a model"):
        add(registry, b"a", name=name)


def test_a_changed_package_is_not_opened(registry: Registry) -> None:
    version = add(registry, b"a")
    path = registry.folder(version) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"b")
    with pytest.raises(IntegrityError, match=r"model\.onnx changed"):
        registry.open("income@1")


def test_packages_that_changed_places_are_not_opened(registry: Registry) -> None:
    """Each is sealed and whole, and each is the wrong one."""
    one, two = (registry.folder(add(registry, content)) for content in (b"a", b"b"))
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    with pytest.raises(IntegrityError, match="not the recorded"):
        registry.open("income@1")


def test_two_processes_that_register_at_once_lose_nothing(project: Project) -> None:
    pids = [fork(lambda start=start: register_many(project, start, 5)) for start in (0, 5, 10)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    with Store.open(project.store_root) as store:
        registry = Registry(project, store)
        assert sorted(numbers(registry)) == list(range(1, 16))
        contents = {registry.open(f"income@{n}").files["model.onnx"] for n in range(1, 16)}
        assert contents == {b"%d" % n for n in range(15)}
        assert verify(registry).sound


def test_a_killed_registration_is_there_wholly_or_not_at_all(project: Project) -> None:
    chance = random.Random(0)
    for attempt in range(20):
        pid = fork(lambda start=attempt * 1000: register_many(project, start, 1000))
        time.sleep(chance.uniform(0.01, 0.15))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with Store.open(project.store_root) as store:
        registry = Registry(project, store)
        last = add(registry, b"after")
        assert sorted(numbers(registry)) == list(range(1, last.number + 1))
        assert verify(registry).sound
        assert {path.name for path in (project.packages / "income").iterdir()} == {
            str(number) for number in range(1, last.number + 1)
        }


def test_a_leftover_of_a_killed_registration_is_moved_aside_not_deleted(
    registry: Registry, project: Project
) -> None:
    """It may as well be a version that an older backup of the catalog does not know."""
    left = project.packages / "income" / "1"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"precious")
    version = add(registry, b"a")
    assert registry.open("income@1").digest == version.package
    aside = (project.store_root / "tmp").glob(f"{UNREGISTERED}*")
    assert [(path / "model.onnx").read_bytes() for path in aside] == [b"precious"]


def test_a_full_disk_leaves_neither_a_version_nor_a_draft(project: Project) -> None:
    """A limit on the size of files stands for the disk."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        with Store.open(project.store_root) as store:
            with pytest.raises(StoreFull):
                add(Registry(project, store), bytes(500_000))
            assert add(Registry(project, store), b"small").number == 1

    assert os.waitpid(fork(work), 0)[1] == 0
    assert list((project.store_root / "tmp").iterdir()) == []


def test_a_key_of_another_project_registers_nothing(project: Project, tmp_path: Path) -> None:
    project.private_key.unlink()
    seal.make_keys(project.private_key)
    with Store.open(project.store_root) as store:
        with pytest.raises(InvalidConfig, match="not the key of this project"):
            add(Registry(project, store), b"a")
        assert store.catalog.count(ModelVersion) == 0
    assert not project.packages.joinpath("income").exists()


def test_versions_can_be_read_without_the_private_key(registry: Registry, project: Project) -> None:
    """A server holds the public key only."""
    add(registry, b"a")
    project.private_key.unlink()
    assert registry.open("income@1").files["model.onnx"] == b"a"
    assert verify(registry).sound
    with pytest.raises(NotFound, match="private key"):
        add(registry, b"b")
