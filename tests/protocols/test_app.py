"""One application for all protocols: routes, access, methods, counts, and lines in the log."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from projects import make_project
from support import wait_for

from clewline.errors import NotFound
from clewline.project import Project
from clewline.protocols.app import HttpApp
from clewline.protocols.http import access_log
from clewline.protocols.http.access_log import AccessLog
from clewline.protocols.http.health import ServerHealth
from clewline.protocols.http.host_check import HostCheck
from clewline.protocols.http.request import HttpLimits, HttpRequest, HttpResponse
from clewline.protocols.http.route import POST, READ, HttpRoute
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve import access
from clewline.serve.access import FAILURES, TokenChecker
from clewline.store.store import Store

ROLES = {b"/predict": "predict", b"/review": "review", b"/operate": "operate", b"/any": "any"}


class Things:
    """A protocol with a route for each role."""

    def __init__(self) -> None:
        self.found = 0
        self.handled = 0

    def find(self, path: bytes) -> HttpRoute | None:
        self.found += 1
        if path == b"/open":
            return HttpRoute("open", None, READ, self._answer)
        if path in ROLES:
            return HttpRoute(path[1:].decode(), ROLES[path], POST, self._answer, self._admit)
        if path.startswith(b"/id/"):
            return HttpRoute("id", None, READ, self._answer, keep=False)
        if path == b"/stream":
            return HttpRoute("stream", None, READ, self._stream)
        if path == b"/gone":
            raise NotFound("There is no 'gone' here.", "Did you mean 'gown'?")
        if path == b"/wrong":
            return HttpRoute("wrong", None, READ, self._wrong)
        return None

    def _answer(self, request: HttpRequest) -> None:
        self.handled += 1
        request.rows, request.first_id = 2, bytes(range(16))
        request.answer(HttpResponse(200, b'{"q":%d}' % len(request.query)))

    def _stream(self, request: HttpRequest) -> None:
        stream = request.start(HttpResponse(200))
        stream.send(b"abc")
        stream.end()

    def _admit(self, request: HttpRequest) -> HttpResponse | None:
        return HttpResponse(415, b"{}") if b"content-type" not in request.headers else None

    def _wrong(self, request: HttpRequest) -> None:
        raise NotFound("It is not there.", "Look elsewhere.")


class Site:
    """A server with the application around `Things`, over a real store of tokens."""

    def __init__(
        self, project: Project, run_http, call, *, required: bool, log: str | None, proxy: bool
    ) -> None:
        self._call = call
        self.things, self.health = Things(), ServerHealth()
        self.gate = TokenChecker(project, required=required)
        self.gate.open()
        self.log = None if log is None else AccessLog(log)
        hosts = HostCheck(["a"])
        app = HttpApp(
            (self.things,), self.gate, self.health, hosts, log=self.log, behind_proxy=proxy
        )
        self.running = run_http(HttpLimits(drain_s=3.0), None, app)

    def ask(self, method: bytes, target: bytes, *lines: str) -> tuple[int, dict[str, str], bytes]:
        """Send one request on a connection of its own."""
        caller = self._call(self.running.port)
        try:
            head = "".join(f"{line}\r\n" for line in ("Host: a", "Content-Length: 0", *lines))
            caller.send(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, head.encode()))
            status, headers = caller.head()
            return status, headers, caller.file.read(int(headers.get("content-length", 0)))
        finally:
            caller.close()

    def stop(self) -> None:
        self.running.stop()
        self.gate.close()
        if self.log is not None:
            self.log.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture
def site(project: Project, run_http, call) -> Iterator[Callable[..., Site]]:
    """Start sites; all are stopped at the end."""
    running: list[Site] = []

    def start(*, required: bool = False, log: str | None = None, proxy: bool = False) -> Site:
        running.append(Site(project, run_http, call, required=required, log=log, proxy=proxy))
        return running[-1]

    yield start
    for each in running:
        each.stop()


def bearer(project: Project, *roles: str) -> str:
    with Store.open(project.store_root) as store:
        return f"Authorization: Bearer {access.add_token(project, store, roles).text}"


def test_each_role_opens_its_routes_and_no_others(project, site):
    tokens = {role: bearer(project, role) for role in access.ROLES}
    guarded = site(required=True)
    for path, need in ROLES.items():
        assert guarded.ask(b"POST", path)[0] == 401
        for role, token in tokens.items():
            assert guarded.ask(b"POST", path, token)[0] == (200 if need in (role, "any") else 403)
    assert guarded.ask(b"GET", b"/open")[0] == 200
    assert guarded.ask(b"GET", b"/open", "Authorization: Bearer cl_wrong")[0] == 200


def test_who_shows_no_token_is_told_how_and_learns_of_nothing_that_is_there(site):
    guarded = site(required=True)
    for method, target in ((b"POST", b"/predict"), (b"GET", b"/gone"), (b"GET", b"/nowhere")):
        status, headers, body = guarded.ask(method, target)
        assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="clewline"')
        assert b"gown" not in body
    assert not guarded.things.handled


def test_a_revoked_token_opens_nothing_though_its_request_head_is_remembered(project, site, call):
    guarded = site(required=True)
    with Store.open(project.store_root) as store:
        made = access.add_token(project, store, ("predict",))
    guarded.gate.refresh()
    lines = f"Host: a\r\nContent-Length: 0\r\nAuthorization: Bearer {made.text}\r\n"
    request = b"POST /predict HTTP/1.1\r\n%b\r\n" % lines.encode()
    caller = call(guarded.running.port)
    for _ in range(2):
        caller.send(request)
        assert caller.answer()[0] == 200
    with Store.open(project.store_root) as store:
        access.revoke_token(project, store, made.token.id)
    guarded.gate.refresh()
    caller.send(request)
    assert caller.answer()[0] == 401
    caller.close()
    assert guarded.things.handled == 2


def test_on_loopback_no_token_is_needed_and_a_wrong_one_is_refused(project, site):
    token = bearer(project, "review")
    free = site()
    assert free.ask(b"POST", b"/operate")[0] == 200
    assert free.ask(b"POST", b"/review", token)[0] == 200
    assert free.ask(b"POST", b"/operate", token)[0] == 403
    assert free.ask(b"POST", b"/operate", token[:-1])[0] == 401


def test_many_wrong_tokens_are_told_when_to_come_back(site):
    guarded = site(required=True)
    for _ in range(FAILURES):
        assert guarded.ask(b"POST", b"/predict", "Authorization: Bearer cl_x")[0] == 401
    status, headers, body = guarded.ask(b"POST", b"/predict", "Authorization: Bearer cl_x")
    assert status == 429
    assert 1 <= int(headers["retry-after"]) <= 60
    assert json.loads(body)["error"]["code"] == "too_many_requests"


def test_a_large_body_of_somebody_without_a_token_is_refused_before_it_comes_in(site, call):
    guarded = site(required=True)
    caller = call(guarded.running.port)
    caller.send(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
    status, headers, _ = caller.answer()
    assert (status, headers["connection"]) == (401, "close")
    caller.close()
    assert guarded.health.statuses["predict", 401] == 1


def test_a_head_is_judged_before_its_body_when_the_caller_waits(project, site):
    token = bearer(project, "predict")
    guarded = site(required=True)
    waits = "Expect: 100-continue"
    assert guarded.ask(b"POST", b"/predict", waits)[0] == 401
    assert guarded.ask(b"POST", b"/predict", waits, token)[0] == 415
    assert guarded.ask(b"PUT", b"/predict", waits, token)[0] == 405
    assert guarded.ask(b"POST", b"/gone", waits, token)[0] == 404


def test_other_methods_are_told_which_there_are(site):
    status, headers, _ = site().ask(b"DELETE", b"/open")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_errors_become_answers_by_the_one_table_and_all_are_counted(site):
    free = site()
    assert b"Look elsewhere" in free.ask(b"GET", b"/wrong")[2]
    assert b"gown" in free.ask(b"GET", b"/gone")[2]
    assert free.ask(b"GET", b"/nowhere")[0] == 404
    assert free.ask(b"FOO", b"/open")[0] == 400
    assert free.ask(b"GET", b"/open?a=b&c")[2] == b'{"q":2}'
    assert free.health.statuses == {
        ("wrong", 404): 1,
        ("unknown", 404): 2,
        ("refused", 400): 1,
        ("open", 200): 1,
    }


def test_a_route_is_found_once_unless_its_paths_have_no_end(site):
    free = site()
    for number in range(20):
        free.ask(b"GET", b"/open")
        free.ask(b"GET", b"/open?%d" % number)
        free.ask(b"GET", b"http://host%d/op%%65n" % number)
    assert free.things.found == 1
    for number in range(20):
        free.ask(b"GET", b"/id/%d" % number)
    assert free.things.found == 21


def lines_of(path: Path, count: int) -> list[dict[str, object]]:
    wait_for(lambda: path.exists() and len(path.read_text().splitlines()) >= count)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_request_leaves_a_line_without_query_or_secret(project, site, tmp_path):
    token = bearer(project, "predict")
    path = tmp_path / "access.jsonl"
    logged = site(required=True, log=str(path))
    logged.ask(b"POST", b"/predict?secret=1", token)
    logged.ask(b"POST", b"/predict", "Authorization: Bearer cl_guess")
    logged.ask(b"FOO", b"/predict")
    logged.ask(b"GET", b"/stream")
    answered, wrong, refused, streamed = lines_of(path, 4)
    assert answered.pop("seconds") >= 0
    assert abs(answered.pop("time") - time.time()) < 60
    assert answered == {
        "peer": "127.0.0.1",
        "token": token.partition("cl_")[2][:12],
        "method": "POST",
        "path": "/predict",
        "route": "predict",
        "status": 200,
        "bytes": 7,
        "rows": 2,
        "first_id": "00010203-0405-0607-0809-0a0b0c0d0e0f",
    }
    assert (wrong["status"], wrong["route"]) == (401, "predict")
    assert (refused["status"], refused["route"]) == (400, "refused")
    assert (streamed["status"], streamed["bytes"]) == (200, 3)
    text = path.read_text()
    assert "secret" not in text
    assert "guess" not in text
    assert token.rpartition("_")[2] not in text


def test_a_log_that_was_moved_away_is_opened_anew(site, tmp_path):
    path = tmp_path / "access.jsonl"
    logged = site(log=str(path))
    logged.ask(b"GET", b"/open")
    lines_of(path, 1)
    path.rename(tmp_path / "access.jsonl.1")
    logged.ask(b"GET", b"/id/1")
    assert lines_of(path, 1)[0]["path"] == "/id/1"
    assert lines_of(tmp_path / "access.jsonl.1", 1)[0]["path"] == "/open"


def test_a_disk_that_hangs_stops_nobody_and_the_log_says_what_is_missing(
    site, tmp_path, monkeypatch
):
    monkeypatch.setattr(access_log, "WAITING_LINES", 10)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    filled = 0
    while True:  # the writer of the log hangs from its first line on
        try:
            filled += os.write(writer, b"\n" * 4096)
        except BlockingIOError:
            break
    logged = site(log=str(pipe))
    wait_for(lambda: logged.ask(b"GET", b"/open")[0] != 200 or logged.log.dropped)
    assert logged.log.dropped
    os.set_blocking(reader, True)
    text, dropped = b"", logged.log.dropped
    while b'"dropped"' not in text:
        text += os.read(reader, 1 << 16)
        logged.ask(b"GET", b"/open")
    told = next(json.loads(line) for line in text.splitlines() if b"dropped" in line)
    assert told["dropped"] >= dropped
    os.close(writer)
    os.close(reader)


def test_a_full_disk_is_said_once_and_stops_nobody(site, caplog):
    logged = site(log="/dev/full")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            before = logged.log.dropped
            assert logged.ask(b"GET", b"/open")[0] == 200
            wait_for(lambda before=before: logged.log.dropped != before)
    assert caplog.text.count("cannot be written") == 1


def test_a_trusted_proxy_gives_the_callers_address_and_nobody_else_does(site, tmp_path):
    for proxy, peer in ((True, "203.0.113.9"), (False, "127.0.0.1")):
        path = tmp_path / f"{proxy}.jsonl"
        logged = site(log=str(path), proxy=proxy)
        logged.ask(b"GET", b"/open", "X-Forwarded-For: 198.51.100.1, 203.0.113.9")
        logged.ask(b"GET", b"/open", "X-Forwarded-For: <script>")
        first, second = lines_of(path, 2)
        assert (first["peer"], second["peer"]) == (peer, "127.0.0.1")


@pytest.mark.parametrize(
    ("path", "role"),
    {
        b"/v1/endpoints/income/predict": "predict",
        b"/v1/predictions/01990c4e-2b7a-7c31-9f0e-5a4d3c2b1a09": "review",
        b"/v1/endpoints": "any",
        b"/v1/endpoints/income": "any",
        b"/metrics": "any",
        b"/openapi.json": "any",
        b"/health/live": None,
        b"/health/ready": None,
    }.items(),
)
def test_our_routes_need_the_roles_that_the_documents_say(income, path, role):
    route = RestRoutes(income.endpoints, ServerHealth()).find(path)
    assert route is not None
    assert route.role == role
