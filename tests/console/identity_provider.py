"""An identity provider on loopback, made of authlib's own server side."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import uvicorn
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clewline.protocols.http.listener import listening_socket

CLIENT, SECRET = "clewline", "provider-secret"


class Client(ClientMixin):  # type: ignore[misc]
    """The console, as the provider knows it."""

    client_id = CLIENT
    id_token_signed_response_alg = "RS256"
    client_metadata: ClassVar[dict[str, Any]] = {}

    def get_client_id(self) -> str:
        return CLIENT

    def get_default_redirect_uri(self) -> None:
        return None

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri.endswith("/login/provider/back")

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


class Code(SimpleNamespace):
    """A code that was given to a browser, for one use."""

    def get_redirect_uri(self) -> str:
        return str(self.redirect_uri)

    def get_scope(self) -> str:
        return str(self.scope)

    def get_nonce(self) -> str:
        return str(self.nonce)

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


class IdentityProvider(AuthorizationServer):  # type: ignore[misc]
    """Says of everybody who comes what `claims` holds."""

    def __init__(self) -> None:
        super().__init__(["openid", "profile", "email"])
        self.issuer = ""
        self.claims: dict[str, Any] = {"sub": "1"}
        self.codes: dict[str, Code] = {}
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.signs_with = self.key
        provider = self

        class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
            TOKEN_ENDPOINT_AUTH_METHODS: ClassVar[list[str]] = ["client_secret_basic"]

            def save_authorization_code(self, code: str, request: Any) -> None:
                data = request.payload.data
                provider.codes[code] = Code(
                    redirect_uri=data["redirect_uri"],
                    scope=data["scope"],
                    nonce=data.get("nonce", ""),
                    code_challenge=data.get("code_challenge"),
                    code_challenge_method=data.get("code_challenge_method"),
                )

            def query_authorization_code(self, code: str, client: Any) -> Code | None:
                return provider.codes.get(code)

            def delete_authorization_code(self, code: Code) -> None:
                provider.codes = {k: v for k, v in provider.codes.items() if v is not code}

            def authenticate_user(self, code: Code) -> Any:
                return SimpleNamespace(get_user_id=lambda: "1")

        class Tokens(OpenIDCode):  # type: ignore[misc]
            def exists_nonce(self, nonce: str, request: Any) -> bool:
                return False

            def get_encode_header(self, client: Any) -> dict[str, str]:
                return {"alg": "RS256", "kid": "one"}

            def get_client_algorithm(self, client: Any) -> str:
                return "RS256"

            def get_client_claims(self, client: Any) -> dict[str, Any]:
                return {"iss": provider.issuer, "aud": [CLIENT], "exp": int(time.time()) + 600}

            def resolve_client_private_key(self, client: Any) -> Any:
                return provider.signs_with

            def generate_user_info(self, user: Any, scope: str) -> dict[str, Any]:
                return provider.claims

        self.register_grant(Grant, [Tokens(require_nonce=True), CodeChallenge(required=True)])
        bearer = BearerTokenGenerator(lambda **_: secrets.token_hex(16))
        self.register_token_generator("default", bearer)

    def query_client(self, client_id: str) -> Client | None:
        return Client() if client_id == CLIENT else None

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        pass

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass

    def create_oauth2_request(self, request: Any) -> Any:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        if isinstance(body, dict):
            return JSONResponse(body, status, dict(headers))
        return Response(body or "", status, dict(headers))

    async def read(self, request: Request) -> Any:
        asked = OAuth2Request(request.method, str(request.url), headers=request.headers)
        values = dict(request.query_params)
        if request.method == "POST":
            body = (await request.body()).decode()
            values |= dict(Request({"type": "http", "query_string": body.encode()}).query_params)
        asked.payload = BasicOAuth2Payload(values)
        asked._body = values
        return asked

    async def discovery(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
        )

    async def keys(self, _: Request) -> Response:
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    async def authorize(self, request: Request) -> Response:
        asked = await self.read(request)

        def answer() -> Any:
            user = SimpleNamespace(get_user_id=lambda: "1")
            grant = self.get_authorization_grant(asked)
            grant.validate_authorization_request()
            return self.create_authorization_response(asked, user, grant)

        response: Response = await run_in_threadpool(answer)
        return response

    async def token(self, request: Request) -> Response:
        asked = await self.read(request)
        response: Response = await run_in_threadpool(self.create_token_response, asked)
        return response


@contextmanager
def running_provider() -> Iterator[IdentityProvider]:
    """Run a provider on a free port."""
    provider = IdentityProvider()
    app = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", provider.discovery),
            Route("/keys", provider.keys),
            Route("/authorize", provider.authorize),
            Route("/token", provider.token, methods=["POST"]),
        ]
    )
    with listening_socket("127.0.0.1", 0) as listening:
        provider.issuer = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield provider
        finally:
            server.should_exit = True
            thread.join()
