"""Who may see the console, and which requests it refuses whoever sends them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from clewline.console.access import COOKIE, ConsoleAccess, session_key
from clewline.console.app import Console
from clewline.console.pages.login import local_address
from clewline.project import Project
from clewline.scaffold import create
from clewline.serve.access import add_token, revoke_token
from clewline.store.store import Store
from clewline.workers.messages import ServerOptions

ORIGIN = {"Origin": "http://localhost:8471"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create(tmp_path / "p", template="empty")


def opened(project: Project, options: ServerOptions) -> Iterator[tuple[Console, TestClient]]:
    access = ConsoleAccess(project, options, session_key(project))
    access.open()
    console = Console(project, access=access)
    with TestClient(console.app, "http://localhost:8471", follow_redirects=False) as client:
        yield console, client
    console.close()
    access.close()


@pytest.fixture
def local(project: Project) -> Iterator[TestClient]:
    """A console on loopback that asks for no token."""
    for _, client in opened(project, ServerOptions(project=str(project.root))):
        yield client


@pytest.fixture
def guarded(project: Project) -> Iterator[tuple[Console, TestClient]]:
    """A console that asks for a token."""
    options = ServerOptions(project=str(project.root), require_tokens=True, behind_proxy=False)
    yield from opened(project, options)


def token(project: Project, *roles: str) -> tuple[str, str]:
    with Store.open(project.store_root) as store:
        new = add_token(project, store, roles, note="Ada")
    return new.token.id, new.text


def form_token(client: TestClient, address: str = "/login") -> str:
    text = client.get(address).text
    return text.partition('name="csrf" value="')[2].partition('"')[0]


def log_in(console: Console, client: TestClient, text: str) -> int:
    console.access.tokens.refresh()  # type: ignore[attr-defined]
    form = {"token": text, "next": "/search", "csrf": form_token(client)}
    return client.post("/login", data=form, headers=ORIGIN).status_code


def test_on_loopback_nobody_logs_in(local: TestClient) -> None:
    assert local.get("/").status_code == 200


def test_another_host_is_refused_on_every_address(local: TestClient) -> None:
    for address in ("/", "/login", "/search", "/no-such-page"):
        answer = local.get(address, headers={"Host": "rebound.example"})
        assert answer.status_code == 421, address


def test_a_page_elsewhere_can_post_nothing(local: TestClient) -> None:
    form = {"theme": "dark", "csrf": form_token(local, "/search")}
    for headers in (
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        answer = local.post("/appearance", data=form, headers=headers)
        assert answer.status_code == 403, headers
    assert local.post("/appearance", data=form, headers=ORIGIN).status_code == 303


@pytest.mark.parametrize("carried", ["", "0" * 64, "ä"])
def test_a_form_without_its_token_changes_nothing(local: TestClient, carried: str) -> None:
    answer = local.post("/appearance", data={"theme": "dark", "csrf": carried}, headers=ORIGIN)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_without_a_login_every_page_leads_to_the_form(
    guarded: tuple[Console, TestClient], project: Project
) -> None:
    console, client = guarded
    for each in console.navigation:
        answer = client.get(each["address"])
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=")
    assert client.post("/logout", headers=ORIGIN).status_code == 401


def test_a_token_logs_in_until_it_is_revoked(
    guarded: tuple[Console, TestClient], project: Project
) -> None:
    console, client = guarded
    identifier, text = token(project, "view")
    assert log_in(console, client, text) == 303
    page = client.get("/search")
    assert page.status_code == 200
    assert "Ada" in page.text
    with Store.open(project.store_root) as store:
        revoke_token(project, store, identifier)
    console.access.tokens.refresh()  # type: ignore[attr-defined]
    assert client.get("/search").status_code == 303


def test_a_wrong_token_and_one_for_predictions_are_refused(
    guarded: tuple[Console, TestClient], project: Project
) -> None:
    console, client = guarded
    assert log_in(console, client, "cl_0123456789ab_" + "0" * 64) == 401
    assert log_in(console, client, "") == 401
    assert log_in(console, client, token(project, "predict")[1]) == 401
    assert client.get("/search").status_code == 303


def test_a_cookie_that_we_have_not_signed_is_no_login(
    guarded: tuple[Console, TestClient], project: Project
) -> None:
    console, client = guarded
    assert log_in(console, client, token(project, "operate")[1]) == 303
    cookie = client.cookies[COOKIE]
    for changed in (cookie[:-2] + "AA", "AAAA" + cookie[4:], "", "ä", "=", cookie[:20]):
        client.cookies.clear()
        headers = {"Cookie": f"{COOKIE}={changed}".encode()}
        assert client.get("/search", headers=headers).status_code == 303, changed


def test_a_login_is_kept_in_a_cookie_that_scripts_and_other_sites_cannot_use(
    guarded: tuple[Console, TestClient], project: Project
) -> None:
    console, client = guarded
    _, text = token(project, "view")
    console.access.tokens.refresh()  # type: ignore[attr-defined]
    form = {"token": text, "next": "//elsewhere.example/", "csrf": form_token(client)}
    answer = client.post("/login", data=form, headers=ORIGIN)
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_logins_outlast_a_restart_and_their_key_is_the_owners(project: Project) -> None:
    key = session_key(project)
    assert session_key(project) == key
    path = project.store_root / "keys" / "session.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"cut off")
    assert len(session_key(project)) == len(key)


@pytest.mark.parametrize(
    "address", ["https://x.example/", "//x.example", "/\\x.example", "javascript:x", "", "/a\nb"]
)
def test_an_address_elsewhere_is_not_gone_to(address: str) -> None:
    assert local_address(address) == "/"
