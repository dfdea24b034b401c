"""Logging in with a token, and out."""

from __future__ import annotations

from collections.abc import Sequence

from clewline.console.access import COOKIE
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
    values = {"wanted": wanted, "error": error}
    return View("login.html", title="Log in", values=values, status=200 if error is None else 401)
