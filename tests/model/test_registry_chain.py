"""The chain tells when any link of it was touched."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clewline.errors import Fault
from clewline.model import registry_chain, seal
from clewline.model.promote import promote
from clewline.model.registry import Registry
from clewline.model.seal import Sealer
from clewline.model.verify import RecordProblem, Verification, VersionCheck, verify
from clewline.project import Project
from clewline.store.records import ChainEntry

from .conftest import add

NO_LINK = (
    "The {} has no link in the signed chain: someone without the private key recorded it, or an "
    "older clewline."
)


class Signed:
    """A chain of ten links, and the key that signed it."""

    def __init__(self, root: Path, count: int = 10) -> None:
        self.public = seal.make_keys(root / "key")
        self.sealer = Sealer.read(root / "key")
        self.links: list[ChainEntry] = []
        for number in range(1, count + 1):
            body = {"model": f"income@{number}", "package": f"{number:064}"}
            last = self.links[-1] if self.links else None
            self.links.append(
                registry_chain.next_link(last, registry_chain.REGISTERED, body, self.sealer)
            )

    def wrong(self, links: list[ChainEntry]) -> list[str]:
        return registry_chain.chain_problems(links, self.public)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Signed(tmp_path_factory.mktemp("chain"))


def change(link: ChainEntry, **fields: Any) -> ChainEntry:
    return msgspec.structs.replace(link, **fields)


def test_an_untouched_chain_holds(signed: Signed) -> None:
    assert signed.wrong(signed.links) == []
    assert signed.wrong([]) == []


@given(place=st.integers(0, 8))
def test_a_removed_link_is_found(signed: Signed, place: int) -> None:
    links = signed.links[:place] + signed.links[place + 1 :]
    assert f"link {place + 1} is missing" in signed.wrong(links)[0]


@given(order=st.permutations(range(10)).filter(lambda order: order != sorted(order)))
@settings(max_examples=30)
def test_reordered_links_are_found(signed: Signed, order: list[int]) -> None:
    assert signed.wrong([signed.links[place] for place in order])
    # Also when the numbers are written anew, so that they count up.
    moved = [change(signed.links[place], seq=seq) for seq, place in enumerate(order, 1)]
    assert signed.wrong(moved)


@given(place=st.integers(0, 10), copied=st.integers(0, 9))
def test_an_inserted_link_is_found(signed: Signed, place: int, copied: int) -> None:
    links = [*signed.links[:place], signed.links[copied], *signed.links[place:]]
    renumbered = [change(link, seq=seq) for seq, link in enumerate(links, 1)]
    assert signed.wrong(renumbered)


@given(place=st.integers(0, 9), what=st.sampled_from(ChainEntry.__struct_fields__))
def test_a_changed_link_is_found(signed: Signed, place: int, what: str) -> None:
    link = signed.links[place]
    other = {
        "seq": link.seq + 100,
        "previous": "0" * 64,
        "digest": "0" * 64,
        "kind": "promoted",
        "body": {**link.body, "package": "f" * 64},
        "created": link.created + 1,
        "signature": signed.links[place - 1].signature,
    }[what]
    links = list(signed.links)
    links[place] = change(link, **{what: other})
    assert signed.wrong(links)


def test_a_chain_that_was_rebuilt_without_the_key_is_found(signed: Signed, tmp_path: Path) -> None:
    """Whoever can write the catalog can count digests; signing takes the private key."""
    assert all("not signed" in text for text in signed.wrong(Signed(tmp_path).links))


def test_a_record_without_a_link_is_found(registry: Registry) -> None:
    add(registry, b"a")
    add(registry, b"b")
    promote(registry, "income@1", "champion")
    assert verify(registry).sound
    _sql(registry, "DELETE FROM chain_entry WHERE seq = 3")
    assert messages(registry) == [NO_LINK.format("alias income@champion")]
    _sql(registry, "DELETE FROM chain_entry WHERE seq = 2")
    assert NO_LINK.format("model version income@2") in messages(registry)


def test_any_problem_makes_a_verification_unsound() -> None:
    good, bad = VersionCheck("income@1", None), VersionCheck("income@2", "a file was changed")
    record = RecordProblem("The alias was moved.", "Move it back.", unsealed=False)

    def sound(**found: Any) -> bool:
        nothing: dict[str, Any] = {"versions": [good], "links": 1, "anchors": 0, "problems": []}
        return Verification(**(nothing | found)).sound

    assert sound()
    assert not sound(versions=[good, bad])
    assert not sound(problems=["link 1 is missing"])
    assert not sound(records=[record])


def test_an_alias_moved_behind_the_registry_is_found(registry: Registry) -> None:
    add(registry, b"a")
    add(registry, b"b")
    promote(registry, "income@1", "champion")
    _sql(registry, "UPDATE alias SET number = 2")
    assert messages(registry) == [
        "The alias income@champion is not the one in the signed chain: number changed."
    ]


def test_promotions_that_were_cut_off_are_found_in_git(registry: Registry) -> None:
    """Back to champion @1 by way of @2: without Git, cutting both moves off leaves no trace."""
    git(registry.project, "init", "--quiet")
    add(registry, b"a")
    add(registry, b"b")
    promote(registry, "income@1", "champion")
    (first,) = registry.aliases()
    for number in (2, 1):
        promote(registry, f"income@{number}", "champion")
    sound = verify(registry)
    assert sound.sound
    assert sound.anchors == 3
    _sql(registry, "DELETE FROM chain_entry WHERE seq > 3")
    _sql(registry, f"UPDATE alias SET moved = {first.moved!r}")
    problems = verify(registry).problems
    assert len(problems) == 2
    assert all("is missing" in problem for problem in problems)


def test_fetched_heads_are_compared_with_the_chain(registry: Registry) -> None:
    """Whoever rewrites the chain can drop the local ref too; what was pushed comes back."""
    git(registry.project, "init", "--quiet")
    add(registry, b"a")
    name = promote(registry, "income@1", "champion").anchored
    git(registry.project, "update-ref", f"{name}-origin", f"{name}")
    git(registry.project, "update-ref", "-d", f"{name}")
    _sql(registry, "DELETE FROM alias")
    _sql(registry, "DELETE FROM chain_entry WHERE seq = 2")
    (problem,) = verify(registry).problems
    assert "holds head 2" in problem


def test_heads_in_git_touch_neither_branch_nor_work_tree(registry: Registry) -> None:
    git(registry.project, "init", "--quiet")
    add(registry, b"a")
    before = git(registry.project, "status", "--porcelain", "--ignored")
    name = promote(registry, "income@1", "champion").anchored
    assert name == "refs/clewline/0123456789abcdef"
    assert git(registry.project, "for-each-ref", "--format=%(refname)") == name
    assert git(registry.project, "status", "--porcelain", "--ignored") == before


def test_a_promotion_whose_head_git_will_not_take_says_that_the_alias_was_moved(
    registry: Registry,
) -> None:
    git(registry.project, "init", "--quiet")
    blocked = registry.project.root / ".git" / "refs" / "clewline"
    blocked.touch()  # where Git would make a folder
    add(registry, b"a")
    with pytest.raises(Fault, match=r"income@1 is champion, but .* not in Git") as error:
        promote(registry, "income@1", "champion")
    assert "promote again" in str(error.value.fix)
    blocked.unlink()
    again = promote(registry, "income@1", "champion")
    assert (again.moved, verify(registry).anchors) == (False, 1)


def test_a_project_that_its_repository_ignores_has_no_git(
    registry: Registry, project: Project
) -> None:
    git(project, "init", "--quiet")
    (project.root / ".gitignore").write_text("*\n")
    add(registry, b"a")
    assert promote(registry, "income@1", "champion").anchored is None
    assert registry_chain.read_anchors(project) == []


def git(project: Project, *words: str) -> str:
    made = subprocess.run(
        ["git", *words], cwd=project.root, check=True, capture_output=True, text=True
    )
    return made.stdout.strip()


def messages(registry: Registry) -> list[str]:
    return [record.message for record in verify(registry).records]


def _sql(registry: Registry, statement: str) -> None:
    import sqlite3

    with sqlite3.connect(registry.store.root / "catalog.db") as connection:
        connection.execute(statement)
    connection.close()
