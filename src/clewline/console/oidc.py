"""
Logging in through an identity provider that speaks OpenID Connect.

    [console.oidc]                                   in clewline.toml
    issuer = "https://id.example.org"
    client_id = "clewline"
    client_secret_file = "secrets/oidc"              left out for a client without a secret
    role_claim = "groups"                            "email" by default
    roles = {"ml-operators" = "operate", "*" = "view"}

The authorization code flow with PKCE, state and nonce. What the provider says of a person (the ID
token) is verified with its keys.

Source:
    OpenID Connect Core 1.0 (section 3.1), OpenID Connect Discovery 1.0, RFC 7636, RFC 9700.
"""

from __future__ import annotations

import hmac
import secrets
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from clewline.console.page import ROLES, ConsoleRole
from clewline.entry_points import install_command
from clewline.errors import Forbidden, InvalidConfig, NotSupported, Unauthorized
from clewline.project import FILE, Project

SCOPE = "openid profile email"
TIMEOUT_S = 10.0
ATTEMPT_S = 600.0
"""How long a person may take at the provider."""
LEEWAY_S = 60
"""How far the clocks may be apart."""
METADATA_S = 3600.0
"""How long the addresses and keys of the provider are kept."""
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Signatures that are accepted: all of them with a public key."""
AGAIN = "Log in again."


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of `[console.oidc]`."""

    issuer: str
    client_id: str
    roles: dict[str, ConsoleRole]  # value of the claim → role; "*" for everybody else
    client_secret_file: str | None = None  # from the project's folder
    role_claim: str = "email"


class LoginAttempt(msgspec.Struct, frozen=True):
    """What the browser of a person keeps while that person is at the provider."""

    state: str
    nonce: str
    verifier: str
    back: str  # address of the console that the person wanted
    ends: float  # seconds since the epoch


class IdentifiedPerson(NamedTuple):
    """Who has logged in, and where that person wanted to go."""

    name: str
    role: ConsoleRole
    back: str


def read_settings(project: Project) -> OidcSettings | None:
    """
    Read `[console.oidc]` of a project; None if it is not there.

    Raises:
        InvalidConfig: A setting is missing, unknown or wrong.
    """
    path = project.root / FILE
    section = tomllib.loads(path.read_text("utf-8")).get("console", {}).get("oidc")
    if section is None:
        return None
    try:
        settings = msgspec.convert(section, OidcSettings)
    except msgspec.ValidationError as error:
        raise InvalidConfig(
            f"{path}: [console.oidc] is wrong: {error}.",
            "It needs issuer, client_id and roles; docs/server.md shows them.",
        ) from error
    issuer = urlsplit(settings.issuer)
    is_local = issuer.scheme == "http" and issuer.hostname in ("127.0.0.1", "::1", "localhost")
    if issuer.scheme != "https" and not is_local:
        raise InvalidConfig(
            f"{path}: the issuer {settings.issuer!r} is not reached over https.",
            "Write the https address of the provider.",
        )
    return settings


class OidcLogin:
    """
    Lets people log in through a provider. Any thread may use it.

    Args:
        project: Whose folder the secret's file is found from.
        settings: Of the project.

    Raises:
        NotSupported: The extra `oidc` is not installed.
        InvalidConfig: The file of the secret cannot be read.
    """

    def __init__(self, project: Project, settings: OidcSettings) -> None:
        try:
            import authlib.integrations.httpx_client  # noqa: F401
        except ImportError as error:
            message = f"People cannot log in through {settings.issuer}: {error}."
            raise NotSupported(message, install_command("oidc")) from error
        self.settings = settings
        self._secret = _read_secret(project, settings)
        self._known: tuple[float, dict[str, Any], Any] | None = None

    @property
    def provider(self) -> str:
        """The name of the provider's host, for people."""
        return urlsplit(self.settings.issuer).hostname or self.settings.issuer

    def begin(self, redirect: str, back: str) -> tuple[str, LoginAttempt]:
        """
        Return the address at the provider, and what the browser keeps meanwhile.

        Args:
            redirect: The address of the console to which the provider sends people back.
            back: The address of the console that the person wants.

        Raises:
            Unauthorized: The provider does not answer as it should.
        """
        metadata, _ = self._provider()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        attempt = LoginAttempt(state, nonce, verifier, back, time.time() + ATTEMPT_S)
        with self._client(redirect) as client:
            address, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.verifier,
            )
        return str(address), attempt

    def finish(
        self, redirect: str, query: Mapping[str, str], attempt: LoginAttempt | None
    ) -> IdentifiedPerson:
        """
        Return who comes back from the provider.

        Args:
            redirect: As given to `begin`.
            query: Of the address to which the provider sent the browser.
            attempt: What the browser kept.

        Raises:
            Unauthorized: It is not the answer to our question, or not the provider's.
            Forbidden: The provider knows the person, and no role is given to that person.
        """
        state = query.get("state", "")
        if attempt is None or not hmac.compare_digest(attempt.state.encode(), state.encode()):
            raise Unauthorized("This login was not begun in this browser.", AGAIN)
        if attempt.ends < time.time():
            raise Unauthorized("The login took too long.", AGAIN)
        if "code" not in query:
            said = query.get("error_description") or query.get("error", "nothing")
            raise Unauthorized(f"{self.provider} refused the login: {said[:300]}.", AGAIN)
        claims = self._claims(redirect, query["code"], attempt)
        return IdentifiedPerson(_name(claims), self._role(claims), attempt.back)

    def _claims(self, redirect: str, code: str, attempt: LoginAttempt) -> Mapping[str, Any]:
        from authlib.common.errors import AuthlibBaseError
        from authlib.oidc.core import CodeIDToken
        from httpx import HTTPError
        from joserfc import jwt
        from joserfc.errors import JoseError

        metadata, keys = self._provider()
        try:
            with self._client(redirect) as client:
                token = client.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=attempt.verifier
                )
            decoded = jwt.decode(token["id_token"], keys, algorithms=ALGORITHMS)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                options={
                    "iss": {"essential": True, "value": self.settings.issuer},
                    "aud": {"essential": True, "value": self.settings.client_id},
                },
                params={
                    "nonce": attempt.nonce,
                    "client_id": self.settings.client_id,
                    "access_token": token.get("access_token"),
                },
            )
            claims.validate(leeway=LEEWAY_S)
        except (AuthlibBaseError, JoseError, HTTPError, KeyError, ValueError) as error:
            self._known = None  # its keys may have changed
            raise Unauthorized(
                f"The answer of {self.provider} was not accepted: {type(error).__name__}: {error}.",
                AGAIN,
            ) from error
        return dict(claims)

    def _role(self, claims: Mapping[str, Any]) -> ConsoleRole:
        claim, roles = self.settings.role_claim, self.settings.roles
        value = claims.get(claim)
        values = value if isinstance(value, list) else [value]
        if claim == "email" and claims.get("email_verified") is not True:
            values = []  # anybody may claim an address that was not verified
        found = [roles[each] for each in (*values, "*") if isinstance(each, str) and each in roles]
        if not found:
            raise Forbidden(
                f"{_name(claims)} has no role here.",
                f"Give one to the person's {claim} in `roles` of [console.oidc] in {FILE}.",
            )
        return max(found, key=ROLES.index)

    def _provider(self) -> tuple[dict[str, Any], Any]:
        """Return the addresses and the keys of the provider."""
        if self._known is not None and time.monotonic() - self._known[0] < METADATA_S:
            return self._known[1:]
        import httpx
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        where = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            with httpx.Client(timeout=TIMEOUT_S) as client:
                metadata = client.get(where).raise_for_status().json()
                if metadata["issuer"] != self.settings.issuer:
                    raise ValueError(f"it calls itself {metadata['issuer']!r}")
                keys = client.get(metadata["jwks_uri"]).raise_for_status().json()
                found = KeySet.import_key_set(keys)
        except (httpx.HTTPError, JoseError, KeyError, ValueError) as error:
            raise Unauthorized(
                f"{self.provider} does not answer as a provider should: {error}.",
                "Log in with a token, or try again later.",
            ) from error
        self._known = (time.monotonic(), metadata, found)
        return metadata, found

    def _client(self, redirect: str) -> Any:
        from authlib.integrations.httpx_client import OAuth2Client

        return OAuth2Client(
            self.settings.client_id,
            self._secret,
            token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
            scope=SCOPE,
            redirect_uri=redirect,
            code_challenge_method="S256",
            timeout=TIMEOUT_S,
        )


def _name(claims: Mapping[str, Any]) -> str:
    named = (claims.get(claim) for claim in ("email", "preferred_username", "sub"))
    return next((str(name)[:200] for name in named if name), "")


def _read_secret(project: Project, settings: OidcSettings) -> str | None:
    if settings.client_secret_file is None:
        return None
    path = Path(project.root, settings.client_secret_file)
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(
            f"The secret of [console.oidc] cannot be read from {path}: {error}.",
            "Write it there, readable to the server alone.",
        ) from error
