"""Every installed page passes the contract; no two have one name, place or address."""

from __future__ import annotations

from typing import cast

import pytest

from clewline.console.app import installed_pages
from clewline.console.page import ConsolePage
from clewline.testing.page import PageContract


class TestEveryPage(PageContract):
    @pytest.fixture(params=installed_pages(), ids=lambda page: cast(ConsolePage, page).name)
    def page(self, request: pytest.FixtureRequest) -> ConsolePage:
        return cast(ConsolePage, request.param)


def test_no_two_pages_have_one_name_place_or_address() -> None:
    installed = installed_pages()
    names = [page.name for page in installed]
    places = [page.place for page in installed if page.place is not None]
    addresses = [(route.method, route.path) for page in installed for route in page.routes()]
    assert len(set(names)) == len(names)
    assert len(set(places)) == len(places)
    assert len(set(addresses)) == len(addresses)
