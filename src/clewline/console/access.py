"""
Who asks the console, and what that person may do.

    loopback without tokens   everybody may do everything, as with the prediction server
    beyond it                 a person logs in with a token; a signed cookie keeps the login

Every address checks Host and Origin. Every form carries a token of the login that it was made
for, so that no other page can send it.

Source:
    OWASP, Session Management and Cross-Site Request Forgery Prevention Cheat Sheets.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from starlette.requests import Request

from clewline.console.oidc import LoginAttempt, OidcLogin, read_settings
from clewline.console.page import ConsoleRole, Person
from clewline.errors import Forbidden, NotFound, Unauthorized
from clewline.project import Project
from clewline.protocols.http.host_check import HostCheck
from clewline.serve.access import TokenChecker, parse_address, tokens_required
from clewline.store.disk import disk_errors
from clewline.store.records import Token
from clewline.workers.messages import ServerOptions

COOKIE = "clewline-session"
ATTEMPT_COOKIE = "clewline-login"
"""Kept while a person is at the identity provider."""
SESSION_S = 12 * 3600
"""A login ends after this time."""
KEY_BYTES = 32


class Login(msgspec.Struct, frozen=True):
    """What the cookie of a login holds."""

    name: str  # of the person
    role: ConsoleRole
    token: str | None  # its id; None for a login by an identity provider
    ends: float  # seconds since the epoch
    nonce: str


class ConsoleAccess:
    """
    Checks requests for the console, and keeps logins.

    Args:
        project: Whose tokens count.
        options: Of the server that it is started with.
        key: Signs logins; see `session_key`.

    Raises:
        InvalidConfig, NotSupported: People are to log in through an identity provider, and its
            settings are wrong, or the extra `oidc` is not installed.
    """

    def __init__(self, project: Project, options: ServerOptions, key: bytes) -> None:
        settings = read_settings(project)
        self.oidc = None if settings is None else OidcLogin(project, settings)
        self.required = tokens_required(options.host, options.require_tokens)
        self.is_secure = options.tls_cert is not None or options.behind_proxy
        self.tokens = TokenChecker(project, required=self.required)
        self._key = key
        self._hosts = HostCheck(
            project.allowed_hosts, is_loopback=parse_address(options.host).is_loopback
        )
        self._behind_proxy = options.behind_proxy

    def open(self) -> None:
        """Read the tokens, and follow their changes."""
        self.tokens.open()

    def close(self) -> None:
        """Stop following the tokens."""
        self.tokens.close()

    def check_site(self, request: Request) -> None:
        """
        Accept a request by its host and its origin, whatever it asks for.

        A link that a person follows from another site, or the way back from an identity provider,
        may come from anywhere: it only looks, in a window of its own.
        """
        headers = {name.lower(): value for name, value in request.headers.raw}
        is_followed = (
            request.method == "GET"
            and headers.get(b"sec-fetch-mode") == b"navigate"
            and headers.get(b"sec-fetch-dest") == b"document"
        )
        if is_followed:
            headers.pop(b"sec-fetch-site", None)
        self._hosts.check(headers)

    def person(self, request: Request) -> Person:
        """
        Return who asks.

        Raises:
            Unauthorized: Nobody is logged in, and somebody has to be.
        """
        login = self.login(request)
        if login is not None:
            return Person(login.name, login.role)
        if self.required:
            raise Unauthorized("You are not logged in.", "Log in with a token.")
        return Person("local", "operate")

    def log_in(self, request: Request, text: str) -> str:
        """
        Log in with a token.

        Returns:
            The cookie.

        Raises:
            Unauthorized, TooManyFailures: The token is not valid, as for the prediction server.
            Forbidden: The token is only for predictions.
        """
        identifier = self.tokens.check(f"Bearer {text.strip()}", self.peer(request), "any")
        token = self.tokens.valid_token(identifier or "")
        if token is None:  # the token was not asked for: an empty one on loopback
            raise Unauthorized("The token is not known.", "Paste the whole token, cl_….")
        return self.cookie(token.note or token.id, role_of(token), token.id)

    def begin_oidc(self, request: Request, back: str) -> tuple[str, str]:
        """
        Begin a login at the identity provider.

        Returns:
            The address there, and the cookie that its answer needs.

        Raises:
            NotFound: The project has no provider.
            Unauthorized: It does not answer.
        """
        address, attempt = self._provider().begin(self._redirect(request), back)
        return address, self.signed(b"attempt " + msgspec.json.encode(attempt))

    def finish_oidc(self, request: Request) -> tuple[str, str]:
        """
        End a login at the identity provider.

        Returns:
            The cookie of the login, and the address that the person wanted.

        Raises:
            NotFound: The project has no provider.
            Unauthorized, Forbidden: As `OidcLogin.finish`.
        """
        content = self.verified(request.cookies.get(ATTEMPT_COOKIE, "")) or b""
        begun = content.removeprefix(b"attempt ")
        attempt = None if begun == content else msgspec.json.decode(begun, type=LoginAttempt)
        found = self._provider().finish(self._redirect(request), request.query_params, attempt)
        return self.cookie(found.name, found.role, None), found.back

    def _provider(self) -> OidcLogin:
        if self.oidc is None:
            raise NotFound(
                "This console knows no identity provider.", "Log in with a token, at /login."
            )
        return self.oidc

    def _redirect(self, request: Request) -> str:
        scheme = "https" if self.is_secure else "http"
        return f"{scheme}://{request.headers['host']}/login/provider/back"

    def cookie(self, name: str, role: ConsoleRole, token: str | None) -> str:
        """Return the cookie of a new login."""
        ends, nonce = time.time() + SESSION_S, secrets.token_hex(8)
        return self.signed(msgspec.json.encode(Login(name, role, token, ends, nonce)))

    def login(self, request: Request) -> Login | None:
        """Return the login that a request carries, if it is ours and still holds."""
        content = self.verified(request.cookies.get(COOKIE, ""))
        if content is None or content.startswith(b"attempt "):
            return None
        login = msgspec.json.decode(content, type=Login)
        if login.ends < time.time():
            return None
        if login.token is None:
            return login
        token = self.tokens.valid_token(login.token)  # it may have been revoked since
        return None if token is None else msgspec.structs.replace(login, role=role_of(token))

    def csrf_token(self, request: Request) -> str:
        """Return the token that the forms of this login carry."""
        login = self.login(request)
        about = "nobody" if login is None else f"{login.name} {login.nonce}"
        return hmac.digest(self._key, f"form {about}".encode(), "sha256").hex()

    def check_form(self, request: Request, form: Mapping[str, str]) -> None:
        """
        Accept a form that was posted.

        Raises:
            Forbidden: It does not carry the token of this login.
        """
        carried, wanted = form.get("csrf", ""), self.csrf_token(request)
        if not hmac.compare_digest(carried.encode(), wanted.encode()):
            raise Forbidden(
                "The form was not made for this login.", "Open the page again and send it anew."
            )

    def peer(self, request: Request) -> str:
        """Return the address that a request comes from."""
        if self._behind_proxy and (said := request.headers.get("x-forwarded-for")):
            return said.rpartition(",")[2].strip()
        return request.client.host if request.client is not None else ""

    def signed(self, content: bytes) -> str:
        """Sign what a cookie is to hold."""
        proof = hmac.digest(self._key, b"cookie " + content, "sha256")
        return base64.urlsafe_b64encode(proof + content).decode().rstrip("=")

    def verified(self, cookie: str) -> bytes | None:
        """Return what a cookie holds; None if we have not signed it."""
        try:
            data = base64.urlsafe_b64decode(cookie.encode() + b"=" * (-len(cookie) % 4))
        except ValueError:
            return None
        proof, content = data[:KEY_BYTES], data[KEY_BYTES:]
        expected = hmac.digest(self._key, b"cookie " + content, "sha256")
        return content if hmac.compare_digest(proof, expected) else None


def role_of(token: Token) -> ConsoleRole:
    """
    Return the role of a person with a token.

    Raises:
        Forbidden: The token is only for predictions.
    """
    for role in ("operate", "review", "view"):
        if role in token.roles:
            return role
    raise Forbidden(
        f"The token {token.id} has the role {', '.join(token.roles)}, and the console needs view.",
        "Add a token that has it with `clewline tokens add --role view`.",
    )


def session_key(project: Project) -> bytes:
    """Return the key that signs logins, made at first; logins then outlast a restart."""
    path: Path = project.store_root / "keys" / "session.key"
    with disk_errors(path):
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if len(key) == KEY_BYTES:
                return key
            path.unlink()  # a crash has cut it off
            return session_key(project)
        with os.fdopen(file, "wb") as written:
            key = secrets.token_bytes(KEY_BYTES)
            written.write(key)
        return key
