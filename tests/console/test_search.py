"""Any id, name, digest or path leads to its page; words lead to the names that hold them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Shop
from explained import answer_rows
from starlette.testclient import TestClient

from clewline.console.app import Console
from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.store.store import Store


@pytest.fixture(scope="module")
def project(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Project:
    text = "endpoint: offers\nmodel: income@1\n"
    made = shop(tmp_path_factory.mktemp("search"), {"endpoints/offers.yaml": text})
    with Store.open(made.store_root) as store:
        revision.apply(made, store, read_endpoint(made, "offers"))
    return made


@pytest.fixture(scope="module")
def client(project: Project) -> Iterator[TestClient]:
    console = Console(project)
    with TestClient(console.app, follow_redirects=False) as client:
        yield client
    console.close()


def leads_to(client: TestClient, text: str) -> str:
    answer = client.get("/search", params={"q": text})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def test_a_reference_leads_to_its_page(project: Project, client: TestClient) -> None:
    (prediction,) = answer_rows(project, "offers", [{"age": 30, "hours": 40.0}])
    assert leads_to(client, prediction) == f"/predictions/{prediction}"
    assert leads_to(client, "income@2") == "/models/income/2"
    assert leads_to(client, "income@champion") == "/models/income/1"
    assert leads_to(client, "offers#1") == "/endpoints/offers?revision=1"
    assert leads_to(client, " offers ") == "/endpoints/offers"
    assert leads_to(client, "income") == "/models/income"


def test_words_lead_to_the_only_name_that_holds_them_or_to_a_list(client: TestClient) -> None:
    assert leads_to(client, "ffer") == "/endpoints/offers"
    listed = client.get("/search", params={"q": "i"})
    assert listed.status_code == 200
    assert 'href="/models/income"' in listed.text
    nothing = client.get("/search", params={"q": "<b>nowhere"})
    assert nothing.status_code == 404
    assert "&lt;b&gt;nowhere" in nothing.text


def test_suggestions_begin_with_what_the_text_names(client: TestClient) -> None:
    answer = client.get("/search/suggestions", params={"q": "income@2"})
    assert answer.text.startswith('<li role="option" id="suggestion-0" data-address="/models/in')
    several = client.get("/search/suggestions", params={"q": "i"}).text
    assert several.count('role="option"') <= 8
    assert 'data-address="/models/income"' in several
    assert client.get("/search/suggestions", params={"q": "<b>nowhere"}).text == ""
    assert 'data-address="/endpoints"' in client.get("/search/suggestions").text


def test_a_choice_of_light_or_dark_leads_back_and_nowhere_else(client: TestClient) -> None:
    chosen = client.post("/appearance", data={"theme": "dark", "back": "/search?q=i"})
    assert chosen.headers["location"] == "/search?q=i"
    assert "clewline-theme=dark" in chosen.headers["set-cookie"]
    assert "HttpOnly" in chosen.headers["set-cookie"]
    for back in ("//elsewhere.example", "/\\elsewhere.example", "https://elsewhere.example"):
        answer = client.post("/appearance", data={"theme": "dark", "back": back})
        assert answer.headers["location"] == "/"
    assert client.post("/appearance", data={"theme": "pink"}).status_code >= 400
    system = client.post("/appearance", data={"theme": "system"})
    assert 'clewline-theme="";' in system.headers["set-cookie"]
    client.cookies.clear()
    client.cookies.set("clewline-theme", "dark")
    assert '<html lang="en" data-theme="dark">' in client.get("/search").text
