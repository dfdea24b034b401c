"""The console as an ASGI application: routing, rendering, errors, and headers of answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from clewline.console.assets import Assets
from clewline.console.jobs import Jobs
from clewline.console.oidc import OidcLogin
from clewline.console.page import (
    GROUP,
    THEMES,
    ConsolePage,
    Download,
    EventStream,
    Fragment,
    PageAnswer,
    PageRequest,
    PageRoute,
    Person,
    Redirect,
    View,
)
from clewline.console.rendering import render
from clewline.console.server_connection import ServerConnection
from clewline.console.table import table_of
from clewline.entry_points import load_entry_point, names
from clewline.errors import (
    BodyTooLarge,
    ClewlineError,
    Fault,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthorized,
    UsageError,
)
from clewline.project import Project
from clewline.protocols.http.error_responses import STATUS
from clewline.store.store import Store

logger = logging.getLogger(__name__)

YEAR_S = 365 * 86_400
NOBODY = Person("nobody", "view")
FORM_BYTES = 1 << 20
"""Most bytes of a form."""

KINDS = {401: "Log in", 403: "Not allowed", 404: "Not found", 409: "It has changed"}
"""Status → the heading of a page that says why there is no other."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Access(Protocol):
    """Says who asks, and refuses who may not."""

    oidc: OidcLogin | None
    """The identity provider, if the project has one."""
    is_secure: bool
    """Whether browsers reach the console over TLS, so that cookies may need it."""

    def check_site(self, request: Request) -> None:
        """Accept a request by its host and origin; raise `Misdirected` or `CrossSite`."""

    def person(self, request: Request) -> Person:
        """
        Return who asks.

        Raises:
            Unauthorized: Nobody whom we know; the app then leads to `/login`.
        """

    def log_in(self, request: Request, text: str) -> str:
        """Return the cookie of a person who shows a token; raise an error for any other text."""

    def begin_oidc(self, request: Request, back: str) -> tuple[str, str]:
        """Return the address of the identity provider, and a cookie for the way back."""

    def finish_oidc(self, request: Request) -> tuple[str, str]:
        """Return the cookie of a person who comes from the provider, and the address wanted."""

    def csrf_token(self, request: Request) -> str:
        """Return the token that this person's forms carry."""

    def check_form(self, request: Request, form: Mapping[str, str]) -> None:
        """Accept a form that was posted; raise `Forbidden` when it lacks the token."""


class LoopbackAccess:
    """Everybody on this machine may do everything. For tests and for pages in development."""

    oidc = None
    is_secure = False

    def check_site(self, request: Request) -> None:
        """Accept every request."""

    def person(self, request: Request) -> Person:
        """Return the one person there is."""
        return Person("local", "operate")

    def log_in(self, request: Request, text: str) -> str:
        """Refuse every token; nobody needs one."""
        raise UsageError("This console asks nobody to log in.", "Open its first page.")

    def begin_oidc(self, request: Request, back: str) -> tuple[str, str]:
        """Refuse: there is no provider."""
        raise NotFound("This console knows no identity provider.", "Open its first page.")

    def finish_oidc(self, request: Request) -> tuple[str, str]:
        """Refuse: there is no provider."""
        return self.begin_oidc(request, "/")

    def csrf_token(self, request: Request) -> str:
        """Return a token that is never checked."""
        return "loopback"

    def check_form(self, request: Request, form: Mapping[str, str]) -> None:
        """Accept every form."""


def installed_pages() -> list[ConsolePage]:
    """Return every installed page, in the order of the navigation."""
    loaded: list[ConsolePage] = [load_entry_point(GROUP, name)() for name in names(GROUP)]
    return sorted(loaded, key=lambda page: (page.place is None, page.place or 0, page.name))


class Console:
    """
    The application, and what its pages share.

    Args:
        project: Whose line is shown.
        server: The prediction server beside it.
        access: Who may see and do what.
        pages: What it shows; every installed page by default.
    """

    def __init__(
        self,
        project: Project,
        *,
        server: ServerConnection | None = None,
        access: Access | None = None,
        pages: Sequence[ConsolePage] | None = None,
    ) -> None:
        self.project = project
        self.store = Store.open(project.store_root, write=False)
        self.server = server or ServerConnection()
        self.access = access or LoopbackAccess()
        self.pages = installed_pages() if pages is None else list(pages)
        self.jobs = Jobs()
        self.assets = Assets(self.pages)
        self.navigation = [
            {"name": page.name, "title": page.title, "address": page.routes()[0].path}
            for page in self.pages
            if page.place is not None
        ]
        routes = [self._route(page, route) for page in self.pages for route in page.routes()]
        # Fixed addresses go before patterns: /runs/compare is not a run.
        routes.sort(key=lambda route: [part.startswith("{") for part in route.path.split("/")])
        self._router = Starlette(
            routes=[Route("/assets/{digest}/{name:path}", self.assets.answer), *routes],
            exception_handlers={404: self._not_found, 405: self._not_found},
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; whatever it asks for, its host and origin are checked first."""
        answer: ASGIApp = self._router
        if scope["type"] == "http":
            request = Request(scope)
            try:
                self.access.check_site(request)
            except ClewlineError as error:
                answer = self._refuse(None, error, self._bare_request(request))
        await answer(scope, receive, send)

    def close(self) -> None:
        """End what jobs have started, and close the store."""
        self.jobs.close()
        self.store.close()

    def _route(self, page: ConsolePage, route: PageRoute) -> Route:
        async def answer(request: Request) -> Response:
            return await self._answer(page, route, request)

        return Route(route.path, answer, methods=[route.method], name=f"{page.name}{route.path}")

    async def _answer(self, page: ConsolePage, route: PageRoute, request: Request) -> Response:
        asked = self._bare_request(request)
        try:
            person = NOBODY if route.is_public else self.access.person(request)
            form = await _read_form(request) if route.method == "POST" else {}
            if route.method == "POST":
                self.access.check_form(request, form)
            asked = replace(
                asked,
                person=person,
                form=form,
                csrf_token=self.access.csrf_token(request),
                http=request,
            )
            if not person.may(route.role):
                raise Forbidden(
                    f"{person.name} has the role {person.role!r}, and this needs {route.role!r}.",
                    "Ask an operator for a token with that role.",
                )
            answer = await run_in_threadpool(route.answer, asked)
            return await run_in_threadpool(self._respond, page, answer, asked)
        except Unauthorized as error:
            if route.is_public or route.method == "POST":
                return self._refuse(page, error, asked)
            back = urlencode({"next": asked.address()})
            return RedirectResponse(f"/login?{back}", 303, HEADERS)
        except ClewlineError as error:
            return self._refuse(page, error, asked)
        except Exception as error:
            logger.exception("the page %s failed", request.url.path)
            fault = Fault(
                f"The page failed: {type(error).__name__}: {error}.",
                "This is a fault of clewline. The log of the console has the whole of it.",
            )
            return self._refuse(page, fault, asked)

    def _bare_request(self, request: Request) -> PageRequest:
        items = request.query_params.multi_items()
        lists: dict[str, list[str]] = {}
        for name, value in items:
            lists.setdefault(name, []).append(value)
        return PageRequest(
            project=self.project,
            store=self.store,
            person=NOBODY,
            access=self.access,
            server=self.server,
            path={name: str(value) for name, value in request.path_params.items()},
            query=dict(items),
            form={},
            jobs=self.jobs,
            location=request.url.path,
            lists=lists,
            theme=theme if (theme := request.cookies.get("clewline-theme", "")) in THEMES else "",
            pages=self.pages,
            is_fragment=request.headers.get("hx-request") == "true",
        )

    def _respond(self, page: ConsolePage, answer: PageAnswer, request: PageRequest) -> Response:
        if isinstance(answer, View):
            if "export" in request.query:
                return _export(answer, request)
            text = render(page, answer, request, self.navigation, self.assets.links)
            return HTMLResponse(text, answer.status, HEADERS)
        if isinstance(answer, Fragment):
            return HTMLResponse(str(answer.markup), 200, HEADERS)
        if isinstance(answer, Redirect):
            response = RedirectResponse(answer.address, 303, HEADERS)
            for name, value in answer.cookies.items():
                response.set_cookie(
                    name,
                    value,
                    max_age=YEAR_S if value else 0,
                    httponly=True,
                    samesite="lax",
                    secure=self.access.is_secure,
                )
            return response
        if isinstance(answer, EventStream):
            return StreamingResponse(
                _event_lines(answer), media_type="text/event-stream", headers=HEADERS
            )
        return _file_response(answer)

    def _refuse(
        self, page: ConsolePage | None, error: ClewlineError, request: PageRequest
    ) -> Response:
        status = STATUS.get(error.code, 500)
        values = {
            "kind": KINDS.get(status, "It failed" if status >= 500 else "Not accepted"),
            "message": error.message,
            "fix": error.fix,
            "problems": error.fields[:20] if isinstance(error, InvalidInput) else (),
        }
        view = View("error.html", title=str(values["kind"]), values=values, status=status)
        text = render(None, view, request, self.navigation, self.assets.links)
        return HTMLResponse(text, status, HEADERS)

    async def _not_found(self, request: Request, error: Exception) -> Response:
        missing = NotFound(
            f"The console has no page {request.url.path!r}.", "Choose one in the navigation."
        )
        return self._refuse(None, missing, self._bare_request(request))


async def _read_form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            raise BodyTooLarge(f"A form may have {FORM_BYTES:,} bytes.", "Send less.")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise UsageError(
            f"A form is sent as application/x-www-form-urlencoded (got {media_type!r}).",
            "Send it from the page.",
        )
    return dict(parse_qsl(bytes(body).decode("utf-8", "replace"), keep_blank_values=True))


def _export(view: View, request: PageRequest) -> Response:
    form = request.query["export"]
    if form not in ("csv", "json"):
        raise UsageError(f"A table leaves as csv or json (got {form!r}).", "Write export=csv.")
    table = table_of(view.values, request.query.get("table", ""))
    media_type = "text/csv" if form == "csv" else "application/json"
    content = table.export("csv" if form == "csv" else "json")
    return _file_response(Download(f"{table.name}.{form}", media_type, content))


def _file_response(answer: Download) -> Response:
    name = "".join(
        each for each in answer.name if each.isascii() and (each.isalnum() or each in "._-")
    )
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name or "file"}"'}
    if isinstance(answer.content, bytes):
        return Response(answer.content, 200, headers, answer.media_type)
    return StreamingResponse(answer.content, 200, headers, answer.media_type)


async def _event_lines(stream: EventStream) -> AsyncIterator[str]:
    async for event in stream.events:
        lines = "".join(f"data: {line}\n" for line in event.data.split("\n"))
        yield f"event: {event.name}\n{lines}\n"
