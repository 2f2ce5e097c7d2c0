"""One question to HashiCorp Vault's KV engine over HTTP: the fields of one secret.

Input: mount and path of a reference. Output: `KvSecret`, its text fields and how long they may be
used; `KvMissing` when the server says that there is nothing; `KvFailure` for everything else, which
says nothing about the secret. The token comes from a file that is read for every question. Bounds:
one deadline for all of it, `MAX_BODY_BYTES`, no redirect, no proxy of the environment, no
compression. TLS 1.2 or newer is always verified; plain http goes to a loopback address only.
Nothing of an answer's body and nothing of the token is in any text.
Source: the Vault HTTP API, KV secrets engine versions 1 and 2 (read November 2026).
"""

import asyncio
import ipaddress
import json
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import certifi

from palyra_egress.credentials.held import SecretUnusable
from palyra_egress.credentials.kv_settings import KvSettings
from palyra_egress.credentials.secret_files import read_secret_file
from palyra_egress.errors import OperatorMustAct
from palyra_fleet.trusted_files import UntrustedFile, read_trusted

MAX_BODY_BYTES: Final = 256 * 1024
MAX_CA_BYTES: Final = 1024 * 1024


class KvSettingsRefused(OperatorMustAct):
    """The address or files of the KV server cannot be used."""


class KvFailure(Exception):
    """The server could not be asked, or gave no valid answer."""


class KvMissing(Exception):
    """The server says that there is no such secret (any more)."""


@dataclass(frozen=True, slots=True)
class KvSecret:
    """The text fields of a secret, and for how long from now they hold (None: no limit given)."""

    fields: dict[str, str] = field(repr=False)
    lives_ms: int | None


class KvClient:
    """Asks one server. `close` it at the end."""

    def __init__(self, settings: KvSettings) -> None:
        self._settings = settings
        self._base = _checked_url(settings.url)
        self._tls = _tls(settings) if self._base.startswith("https:") else None
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, mount: str, path: str, now_unix_ms: int) -> KvSecret:
        """The secret at `mount`/`path`. Raises KvMissing or KvFailure."""
        try:
            token = await asyncio.to_thread(read_secret_file, self._settings.token_file)
        except SecretUnusable as error:
            raise KvFailure(f"the token: {error}") from None
        is_version_1 = mount in self._settings.version_1_mounts
        middle = "" if is_version_1 else "data/"
        headers = {"X-Vault-Token": token.reveal(), "X-Vault-Request": "true"}
        if self._settings.namespace:
            headers["X-Vault-Namespace"] = self._settings.namespace
        status, body = await self._get(f"{self._base}/v1/{mount}/{middle}{path}", headers)
        if status == 404:
            raise KvMissing("the server has no such secret, or it was deleted there")
        if status != 200:
            raise KvFailure(_STATUS_TEXTS.get(status, f"the server answered {status}"))
        return secret_in_answer(body, is_version_1, now_unix_ms)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _get(self, url: str, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._settings.deadline_s),
                auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
            )
        try:
            async with self._session.get(
                url, headers=headers, ssl=self._tls or True, allow_redirects=False
            ) as response:
                body = b""
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise KvFailure(f"the answer is larger than {MAX_BODY_BYTES} bytes")
                return response.status, body
        except TimeoutError:
            problem = f"no answer within {self._settings.deadline_s:g} s"
        except aiohttp.ClientConnectorCertificateError:
            problem = "the server's certificate does not verify"
        except (aiohttp.ClientError, OSError) as error:
            problem = f"the server cannot be reached ({type(error).__name__})"
        except ValueError as error:  # aiohttp, for an answer that is no HTTP
            problem = f"the answer is not valid ({type(error).__name__})"
        raise KvFailure(problem)


_STATUS_TEXTS: Final = {
    400: "the server refused the question (400)",
    403: "the server refused the token (403)",
    429: "the server is a standby, or asks for fewer questions (429)",
    503: "the server is sealed or down (503)",
} | {
    status: f"the server answered with a redirect ({status}); name the active node"
    for status in (301, 302, 303, 307, 308)
}


def secret_in_answer(body: bytes, is_version_1: bool, now_unix_ms: int) -> KvSecret:
    """The secret in the body of a 200. Raises KvMissing or KvFailure."""
    found = _json(body)
    return _version_1(found) if is_version_1 else _version_2(found, now_unix_ms)


def _version_1(found: dict[str, object]) -> KvSecret:
    data, seconds = found.get("data"), found.get("lease_duration")
    if not isinstance(data, dict):
        raise KvFailure(_NOT_KV)
    has_end = isinstance(seconds, int) and not isinstance(seconds, bool) and seconds > 0
    return KvSecret(_texts(data), seconds * 1000 if has_end and isinstance(seconds, int) else None)


def _version_2(found: dict[str, object], now_unix_ms: int) -> KvSecret:
    outer = found.get("data")
    data = outer.get("data") if isinstance(outer, dict) else None
    metadata = outer.get("metadata") if isinstance(outer, dict) else None
    if not isinstance(metadata, dict):
        raise KvFailure(_NOT_KV)
    if metadata.get("destroyed") is True or data is None:
        raise KvMissing("the newest version of the secret was deleted or destroyed")
    if not isinstance(data, dict):
        raise KvFailure(_NOT_KV)
    deletion = metadata.get("deletion_time")
    if not deletion:
        return KvSecret(_texts(data), None)
    lives_ms = _unix_ms(deletion) - now_unix_ms
    if lives_ms <= 0:
        raise KvMissing("the newest version of the secret has ended")
    return KvSecret(_texts(data), lives_ms)


_NOT_KV: Final = "the answer is not one of a KV engine; is the mount another version?"


def _texts(data: dict[str, object]) -> dict[str, str]:
    return {name: value for name, value in data.items() if isinstance(value, str)}


def _unix_ms(moment: object) -> int:
    """A time of the server's, RFC 3339. Raises KvFailure."""
    try:
        parsed = datetime.fromisoformat(str(moment))
    except ValueError:
        raise KvFailure(_NOT_KV) from None
    if parsed.tzinfo is None:
        raise KvFailure(_NOT_KV)
    return int((parsed - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


def _json(body: bytes) -> dict[str, object]:
    """The object in an answer. The parser's own error holds the body, so it goes no further."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise KvFailure("the answer is no JSON object")
    return found


def _checked_url(url: str) -> str:
    expected = "expected https://HOST[:PORT], or http://127.0.0.1[:PORT]"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise KvSettingsRefused(f"the KV server's address is no URL; {expected}") from None
    if parts.username is not None or parts.password is not None:
        raise KvSettingsRefused(f"the KV server's address holds credentials; {expected}")
    is_whole = parts.path in ("", "/") and not parts.query and not parts.fragment
    if not host or not is_whole or parts.scheme not in ("http", "https"):
        raise KvSettingsRefused(f"the KV server's address is {url!r}; {expected}")
    if parts.scheme == "http" and not _is_loopback(host):
        raise KvSettingsRefused(
            f"the KV server's address is {url!r}: the token would travel in clear; {expected}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(settings: KvSettings) -> ssl.SSLContext:
    """What is trusted are the bytes whose file was looked at, whatever lies there by then."""
    file = settings.ca_file
    try:
        if file is None:
            context = ssl.create_default_context(cafile=certifi.where())
        else:
            content, _ = read_trusted(file, MAX_CA_BYTES)
            text = content.decode("ascii", "ignore")  # comments may be in any language
            context = ssl.create_default_context(cadata=text or "none")
    except UntrustedFile as error:
        raise KvSettingsRefused(f"--kv-ca: {error}") from None
    except (OSError, ssl.SSLError):
        raise KvSettingsRefused(f"{file}: holds no certificates (PEM) that can be used") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
