"""An OpenID Connect issuer on loopback: signs tokens, and serves discovery and keys over TLS.

`TokenIssuer` alone signs; `served_issuer` puts it on a port. `answers` replaces what a path says.
"""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"
AUDIENCE = "palyra-fleet"
SUBJECT = "account-1"


@dataclass
class TokenIssuer:
    """Signs with the newest of its keys. Times: Unix seconds."""

    url: str = "https://issuer.example/team"
    keys: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, web.Response] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.keys:
            self.keys["key-1"] = rsa.generate_private_key(65537, 2048)

    def rotate(self) -> str:
        """Another key in place of those before; its kid."""
        kid = f"key-{len(self.keys) + 1}-new"
        self.keys = {kid: ec.generate_private_key(ec.SECP256R1())}
        return kid

    def key_set(self) -> dict[str, Any]:
        return {"keys": [_public(kid, key) for kid, key in self.keys.items()]}

    def claims(self, now_s: int, **changes: Any) -> dict[str, Any]:
        """Those of a good token, changed; a change to None leaves a claim out."""
        good = {
            "iss": self.url,
            "sub": SUBJECT,
            "aud": AUDIENCE,
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + 600,
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, now_s: int, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        kid, key = list(self.keys.items())[-1]
        head = {"kid": kid, **(headers or {})}
        payload = json.dumps(self.claims(now_s, **changes)).encode()
        return jwt.PyJWS().encode(payload, key, _algorithm(key), headers={"typ": "JWT", **head})

    async def serve(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path in self.answers:
            said = self.answers[request.path]
            return web.Response(status=said.status, body=said.body, headers=said.headers)
        if request.path.endswith(DISCOVERY):
            return web.json_response({"issuer": self.url, "jwks_uri": self._base() + KEYS})
        return web.json_response(self.key_set())

    def _base(self) -> str:
        return "/".join(self.url.split("/")[:3])


@asynccontextmanager
async def served_issuer(tls: ssl.SSLContext, path: str = "/team") -> AsyncIterator[TokenIssuer]:
    issuer = TokenIssuer()
    application = web.Application()
    application.router.add_get("/{any:.*}", issuer.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    issuer.url = f"https://localhost:{runner.addresses[0][1]}{path}"
    try:
        yield issuer
    finally:
        await runner.cleanup()


def _algorithm(key: Any) -> str:
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"


def _public(kid: str, key: Any) -> dict[str, Any]:
    algorithm: Any = jwt.get_algorithm_by_name(_algorithm(key))
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}
