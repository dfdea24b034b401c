"""No page of another site reaches a server through a browser; every other client does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from clewline.client import Client
from clewline.errors import CrossSite, InvalidConfig, Misdirected
from clewline.project import load
from clewline.protocols.http.host_check import HostCheck

if TYPE_CHECKING:
    from conftest import Loans

ROW: dict[str, Any] = {"age": 39, "hours": 40.5, "job": "nurse"}
ROUTES = {
    "GET": [
        *("/health/live", "/health/ready", "/metrics", "/openapi.json", "/nothing-here"),
        *("/v1/endpoints", "/v1/endpoints/income", "/v1/endpoints/income/openapi.json"),
        *("/v1/predictions", "/v1/predictions/01a1fc0f-da59-7789-becf-2d0773e288df"),
        *("/v2", "/v2/health/live", "/v2/models/income", "/v2/models/income/ready"),
        *("/ping", "/health", "/version", "/mlflow/income/ping"),
    ],
    "POST": [
        *("/v1/endpoints/income/predict", "/v1/endpoints/income/load"),
        *("/v1/endpoints/income/unload", "/v2/models/income/infer", "/v2/repository/index"),
        *("/v2/repository/models/income/load", "/v2/repository/models/income/unload"),
        *("/invocations", "/mlflow/income/invocations"),
    ],
}
EVERY = [(method, path) for method, paths in ROUTES.items() for path in paths]


def code_of(answer: Any) -> Any:
    """Return the code of an error, in the shape of any protocol."""
    error = answer.get("error")
    return error["code"] if isinstance(error, dict) else answer.get("code")


@pytest.mark.parametrize(("method", "path"), EVERY, ids=[f"{m} {p}" for m, p in EVERY])
def test_every_route_refuses_a_rebound_name_and_a_page_of_another_site(income, method, path):
    for headers, refusal in (
        ({"host": f"evil.example:{income.port}"}, (421, "misdirected")),
        ({"host": "", "origin": "http://evil.example"}, (421, "misdirected")),
        ({"origin": "http://evil.example"}, (403, "cross_site")),
        ({"origin": "null"}, (403, "cross_site")),
        ({"origin": f"http://127.0.0.1:{income.port + 1}"}, (403, "cross_site")),
        ({"sec-fetch-site": "cross-site"}, (403, "cross_site")),
        ({"sec-fetch-site": "same-site"}, (403, "cross_site")),
    ):
        body = b"a=b" if method == "POST" else None
        form = {"content-type": "text/plain"} | headers
        status, answer, _ = income.ask(method, path, body, **form)
        assert (status, code_of(answer)) == refusal, headers
    assert income.ask("GET", "/health/ready")[0] == 200, "nothing was unloaded"


def test_clients_that_are_no_browsers_go_on(income: Any) -> None:
    body = msgspec.json.encode({"rows": [ROW]})
    own = f"127.0.0.1:{income.port}"
    for headers in (
        {},
        {"host": "localhost"},
        {"host": f"LOCALHOST.:{income.port}"},
        {"host": "127.0.0.1"},
        {"host": "127.8.9.10:1"},  # through a tunnel
        {"host": f"[::1]:{income.port}"},
        {"host": "[::ffff:127.0.0.1]"},
        {"origin": f"http://{own}"},  # a page of the server itself
        {"origin": f"http://{own}", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},  # the address bar
        {"sec-fetch-mode": "cors"},  # fetch() of Node.js
    ):
        given = {"content-type": "application/json"} | headers
        assert income.ask("POST", "/v1/endpoints/income/predict", body, **given)[0] == 200, headers
        assert income.ask("GET", "/health/ready", **headers)[0] == 200, headers
    with Client(income.url.replace("127.0.0.1", "localhost")) as client:
        assert len(client.predict("income", ROW)) == 1


def raw(income: Any, call: Callable[..., Any], request: bytes) -> int:
    caller = call(income.port)
    try:
        caller.send(request)
        return caller.head()[0]
    finally:
        caller.close()


def test_the_host_of_an_absolute_target_counts(income: Any, call: Callable[..., Any]) -> None:
    ask = b"GET http://%b/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(income, call, ask % b"localhost:1") == 200
    assert raw(income, call, ask % b"evil.example") == 421
    assert raw(income, call, ask % b"localhost@evil.example") == 421
    assert raw(income, call, b"GET /health/live HTTP/1.0\r\n\r\n") == 200  # as load balancers ask


def test_a_large_body_is_refused_by_its_head(income: Any, call: Callable[..., Any]) -> None:
    head = b"POST /v1/endpoints/income/predict HTTP/1.1\r\nHost: evil.example\r\n%b\r\n\r\n"
    assert raw(income, call, head % b"Content-Length: 1000000") == 421
    assert raw(income, call, head % b"Content-Length: 10\r\nExpect: 100-continue") == 421


@pytest.mark.parametrize(
    "path",
    [
        "/v1%2fendpoints",
        "/v1/endpoints%2Fincome",
        "/v1/predictions%2f01a1fc0f-da59-7789-becf-2d0773e288df",
        "/v2/models%2fincome",
        "/mlflow%2fincome/ping",
        "/v1/endpoints/x%2f..%2fincome",
        "/v1/endpoints/x/%2e%2e/income",
        "/v1/endpoints/x/../income",
        "/v1/endpoints/./income",
        "/v1/endpoints//income",
        "//v1/endpoints",
        "/v1/endpoints/income%00",
        "/v1/endpoints%c0%afincome",
        "/v1/endpoints%252fincome",
        "/v1/endpoints\\income",
        "/v1/endpoints/income%3f",
        "/v1/endpoints/income;x",
    ],
)
def test_only_a_slash_separates_and_nothing_is_resolved(income: Any, path: str) -> None:
    assert income.ask("GET", path)[0] == 404


def test_an_encoded_letter_is_that_letter(income: Any) -> None:
    assert income.ask("GET", "/v1/endpoint%73/%69ncome")[0] == 200


def test_names_of_the_project_are_answered_to(
    loans: Loans, up: Callable[..., Any], tmp_path: Path
) -> None:
    toml = loans.project.root / "clewline.toml"
    before = toml.read_text()
    names = 'allowed_hosts = ["Models.example.org", "*.internal"]'
    toml.write_text(f"{before}\n[server]\n{names}\n")
    server = up(load(loans.project.root))

    def ask(**headers: str) -> int:
        return server.ask("GET", "/v1/endpoints", **headers)[0]

    assert ask(host="models.example.org:443") == 200
    assert ask(host="a.internal") == 200
    assert ask(host="internal") == 421
    page = {"origin": "https://models.example.org", "sec-fetch-site": "same-origin"}
    assert ask(host="127.0.0.1:1", **page) == 200, "a proxy that rewrites Host"
    assert ask(origin="https://a.internal") == 403, "a pattern trusts no page"

    for wrong in ('allowed_host = ["a"]', "allowed_hosts = 1", 'allowed_hosts = ["https://a"]'):
        toml.write_text(f"{before}\n[server]\n{wrong}\n")
        with pytest.raises(InvalidConfig, match="allowed_hosts"):
            load(loans.project.root)


def test_bound_beyond_loopback_every_address_is_answered_to() -> None:
    hosts = HostCheck(is_loopback=False)
    for host in (b"203.0.113.9:8470", b"[2001:db8::1]", b"localhost"):
        hosts.check({b"host": host})
    for host in (b"evil.example", b"203.0.113.9.evil.example", b"127.1", b"a@localhost"):
        with pytest.raises(Misdirected):
            hosts.check({b"host": host})
    with pytest.raises(Misdirected):
        HostCheck().check({b"host": b"203.0.113.9"})
    with pytest.raises(CrossSite):
        HostCheck(["*"]).check({b"host": b"localhost", b"origin": b"http://evil.example"})


def test_what_callers_send_does_not_fill_the_memory() -> None:
    hosts = HostCheck(["*"])
    for number in range(2000):
        hosts.check({b"host": b"h%d" % number})
    assert len(hosts.known) < 1000
