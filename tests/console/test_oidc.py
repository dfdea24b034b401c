"""People log in through an identity provider, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from console.identity_provider import CLIENT, SECRET, IdentityProvider, running_provider
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from clewline.console.access import ConsoleAccess, session_key
from clewline.console.app import Console
from clewline.console.oidc import read_settings
from clewline.errors import InvalidConfig
from clewline.project import Project
from clewline.scaffold import create
from clewline.workers.messages import ServerOptions

ANNA = {"sub": "7", "email": "anna@example.org", "email_verified": True}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityProvider]:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    with running_provider() as provider:
        provider.claims = dict(ANNA)
        yield provider


@pytest.fixture
def project(tmp_path: Path, provider: IdentityProvider) -> Project:
    project = create(tmp_path / "p", template="empty")
    (project.root / "secret").write_text(SECRET + "\n")
    with (project.root / "clewline.toml").open("a") as file:
        file.write(
            f'\n[console.oidc]\nissuer = "{provider.issuer}"\nclient_id = "{CLIENT}"\n'
            'client_secret_file = "secret"\n'
            'roles = {"anna@example.org" = "operate", "*" = "view"}\n'
        )
    return project


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    options = ServerOptions(project=str(project.root), require_tokens=True)
    access = ConsoleAccess(project, options, session_key(project))
    access.open()
    console = Console(project, access=access)
    with TestClient(console.app, "http://localhost:8471", follow_redirects=False) as client:
        yield client
    console.close()
    access.close()


def way_back(client: TestClient, wanted: str = "/settings") -> str:
    """Go to the provider, and return the address to which it sends the browser."""
    begun = client.get("/login/provider", params={"next": wanted})
    assert begun.status_code == 303
    answer = httpx.get(begun.headers["location"])
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def test_a_person_logs_in_with_the_role_of_the_project(client: TestClient) -> None:
    assert "Log in through 127.0.0.1" in client.get("/login").text
    followed = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    answer = client.get(way_back(client), headers=followed)
    assert (answer.status_code, answer.headers["location"]) == (303, "/settings"), answer.text
    page = client.get("/settings").text
    assert "anna@example.org, operate" in page
    assert "Add a token" in page


def test_somebody_else_gets_the_role_of_everybody_else(
    client: TestClient, provider: IdentityProvider
) -> None:
    provider.claims = {"sub": "8", "email": "ben@example.org", "email_verified": True}
    assert client.get(way_back(client)).status_code == 303
    assert "ben@example.org, view" in client.get("/settings").text


def test_an_address_that_the_provider_has_not_verified_gives_no_role(
    client: TestClient, provider: IdentityProvider
) -> None:
    provider.claims = {**ANNA, "email_verified": False}
    assert client.get(way_back(client)).status_code == 303
    assert "anna@example.org, view" in client.get("/settings").text


def test_an_answer_for_another_browser_or_another_question_is_refused(client: TestClient) -> None:
    back = way_back(client)
    other = back.replace(parse_qs(urlsplit(back).query)["state"][0], "forged")
    for asked in (other, back.replace("code=", "nothing=")):
        answer = client.get(asked)
        assert answer.status_code == 401
    client.cookies.clear()
    answer = client.get(back)
    assert answer.status_code == 401
    assert "not begun in this browser" in answer.text
    assert client.get("/settings").status_code == 303


def test_a_code_works_once(client: TestClient) -> None:
    back = way_back(client)
    attempt = client.cookies["clewline-login"]
    assert client.get(back).status_code == 303
    client.cookies.clear()
    client.cookies["clewline-login"] = attempt
    assert client.get(back).status_code == 401


def test_a_token_that_the_provider_has_not_signed_is_refused(
    client: TestClient, provider: IdentityProvider
) -> None:
    back = way_back(client)
    provider.signs_with = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
    answer = client.get(back)
    assert answer.status_code == 401
    assert "was not accepted" in answer.text


@pytest.mark.parametrize(
    "claim", [{"aud": "another"}, {"iss": "http://127.0.0.1:1"}, {"exp": 1}, {"nonce": "other"}]
)
def test_a_token_for_another_client_or_time_is_refused(
    client: TestClient, provider: IdentityProvider, claim: dict[str, object]
) -> None:
    back = way_back(client)
    provider.claims = {**ANNA, **claim}
    answer = client.get(back)
    assert answer.status_code == 401, claim
    assert "was not accepted" in answer.text


def test_a_cookie_on_the_way_is_no_login(client: TestClient) -> None:
    way_back(client)
    client.cookies["clewline-session"] = client.cookies["clewline-login"]
    assert client.get("/settings").headers["location"].startswith("/login?")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('issuer = "https://a"', "client_id"),
        ('issuer = "http://a.org"\nclient_id = "c"\nroles = {}', "https"),
        ('issuer = "https://a"\nclient_id = "c"\nroles = {a = "root"}', "root"),
        ('issuer = "https://a"\nclient_id = "c"\nroles = {}\nrole = 1', "role"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, section: str, said: str) -> None:
    project = create(tmp_path / "p", template="empty")
    with (project.root / "clewline.toml").open("a") as file:
        file.write(f"\n[console.oidc]\n{section}\n")
    with pytest.raises(InvalidConfig, match=said):
        read_settings(project)


@pytest.mark.parametrize(
    ("method", "mode", "destination", "status"),
    [
        ("GET", "navigate", "document", 303),
        ("GET", "navigate", "iframe", 403),
        ("GET", "no-cors", "image", 403),
        ("POST", "navigate", "document", 403),
    ],
)
def test_another_site_may_link_here_and_do_nothing_else(
    client: TestClient, method: str, mode: str, destination: str, status: int
) -> None:
    headers = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": mode,
        "Sec-Fetch-Dest": destination,
    }
    assert client.request(method, "/settings", headers=headers).status_code == status
