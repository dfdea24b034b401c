"""Logging in with a token, and out."""

from __future__ import annotations

from collections.abc import Sequence

from clewline.console.access import ATTEMPT_COOKIE, COOKIE
from clewline.console.page import PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.errors import ClewlineError


class LoginPage:
    """Logging in with a token, and out."""

    name = "login"
    title = "Log in"
    place = None

    def routes(self) -> Sequence[PageRoute]:
        """Return the forms to log in and out."""
        return (
            PageRoute("/login", show_login, is_public=True),
            PageRoute("/login", log_in, method="POST", is_public=True),
            PageRoute("/login/provider", go_to_provider, is_public=True),
            PageRoute("/login/provider/back", come_back, is_public=True),
            PageRoute("/logout", log_out, method="POST"),
        )


def show_login(request: PageRequest) -> PageAnswer:
    """Ask for a token."""
    return _ask(request, request.query.get("next", "/"))


def log_in(request: PageRequest) -> PageAnswer:
    """Log in with a token, and go where the person wanted to go."""
    wanted = request.form.get("next", "/")
    try:
        cookie = request.access.log_in(request.http, request.form.get("token", ""))
    except ClewlineError as error:
        return _ask(request, wanted, error)
    return Redirect(local_address(wanted), cookies={COOKIE: cookie})


def go_to_provider(request: PageRequest) -> PageAnswer:
    """Send the person to the identity provider, if there is one."""
    if request.access.oidc is None:
        return Redirect("/login")
    back = local_address(request.query.get("next", "/"))
    address, attempt = request.access.begin_oidc(request.http, back)
    return Redirect(address, cookies={ATTEMPT_COOKIE: attempt})


def come_back(request: PageRequest) -> PageAnswer:
    """Log in the person whom the identity provider sends back."""
    if request.access.oidc is None:
        return Redirect("/login")
    try:
        cookie, back = request.access.finish_oidc(request.http)
    except ClewlineError as error:
        return _ask(request, "/", error)
    return Redirect(local_address(back), cookies={COOKIE: cookie, ATTEMPT_COOKIE: ""})


def log_out(request: PageRequest) -> PageAnswer:
    """Forget the login."""
    return Redirect("/login", cookies={COOKIE: ""})


def local_address(address: str) -> str:
    """
    Return an address of the console; its first page in place of one elsewhere.

    >>> local_address("/runs?status=failed"), local_address("//example.org")
    ('/runs?status=failed', '/')
    """
    is_local = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_local and address.isprintable() else "/"


def _ask(request: PageRequest, wanted: str, error: ClewlineError | None = None) -> View:
    oidc = request.access.oidc
    provider = None if oidc is None else oidc.provider
    values = {"wanted": wanted, "error": error, "provider": provider}
    return View("login.html", title="Log in", values=values, status=200 if error is None else 401)
