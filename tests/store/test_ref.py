"""References, and the records that they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from clewline.errors import NotFound, UsageError
from clewline.store.ref import (
    Ref,
    find_revision,
    find_run,
    find_version,
    require_alias_name,
    require_model_name,
    resolve,
)

if TYPE_CHECKING:
    from conftest import Line


@pytest.mark.parametrize("text", ["income", "income@3", "income@champion", "income#12"])
def test_a_reference_is_written_as_it_was_read(text: str) -> None:
    assert str(Ref.parse(text)) == text


@pytest.mark.parametrize("text", ["", "@", "income@", "@3", "#1"])
def test_half_a_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME@NUMBER"):
        Ref.parse(text)


def test_what_is_not_a_short_ascii_number_is_an_alias() -> None:
    for alias in ("²", "٣", "1" * 16, "v1"):
        assert Ref.parse(f"income@{alias}").alias == alias


def test_a_version_is_found_by_number_by_alias_or_as_the_newest(line: Line) -> None:
    for text in ("income@1", "income@champion", "income"):
        assert find_version(line.store.catalog, text) == line.version()
    with line.store.catalog.transaction() as transaction:
        assert find_version(transaction, "income@champion") == line.version()


def test_a_revision_is_found_by_number_or_as_the_live_one(line: Line) -> None:
    for text in ("income#1", "income"):
        assert find_revision(line.store.catalog, text) == line.revision()


def test_a_run_is_found_by_a_beginning_of_its_id(line: Line) -> None:
    assert find_run(line.store.catalog, "4f9a") == line.run()
    with pytest.raises(NotFound, match="There is no run 'abcdef'"):
        find_run(line.store.catalog, "abcdef")


@pytest.mark.parametrize(
    ("find", "text", "says"),
    [
        (find_version, "incme", "There is no model 'incme'. Did you mean 'income'?"),
        (find_version, "incme@1", "There is no model 'incme'. Did you mean 'income@1'?"),
        (find_version, "xyz@1", "There is no model 'xyz'. Known names: income."),
        (find_version, "income@7", "There is no model version income@7. The newest is income@1."),
        (find_version, "income@champon", "There is no alias income@champon. Did you mean"),
        (find_version, "income#1", "'income#1' refers to a revision of an endpoint"),
        (find_revision, "incme", "There is no endpoint 'incme'. Did you mean 'income'?"),
        (find_revision, "income#7", "There is no revision income#7; income#1 is live."),
        (find_revision, "income@1", "'income@1' refers to a model version"),
    ],
)
def test_one_mistake_has_one_message(line: Line, find: object, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(line.store.catalog, text)
    assert str(caught.value).startswith(says)
    if isinstance(caught.value, NotFound) and text not in ("incme", "xyz@1"):
        with pytest.raises(NotFound) as again:
            resolve(line.store.catalog, text)
        assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a@1", "é", "a" * 65])
def test_a_name_that_no_reference_could_hold_is_refused(name: str) -> None:
    for require in (require_model_name, require_alias_name):
        with pytest.raises(UsageError):
            require(name)


def test_an_alias_is_never_a_number() -> None:
    require_model_name("2024")
    with pytest.raises(UsageError):
        require_alias_name("2024")
