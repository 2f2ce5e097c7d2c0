"""Reads an issuer's keys: from a file, or from the issuer by OpenID Connect Discovery.

Discovery asks `URL/.well-known/openid-configuration`, whose `issuer` must be the URL itself, and
then the `jwks_uri` it names, which must be `https`. Certificates and names are verified, redirects
and proxies are not followed, answers are bounded in bytes and in time, and only a whole 200 counts.
Files are read only while nobody but us and root can change what they say: whoever writes to one
decides who is let in. A failure is a KeysUnreadable whose text has the operator's own words and no
byte of an answer; it is a KeysWithdrawn where a whole answer leaves no key that could be used.
Source: OpenID Connect Discovery 1.0, sections 3 and 4.
"""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any, Final

import aiohttp

from palyra_fleet.exports.trust import client_context, context_of
from palyra_fleet.issuers.trusted import TrustedIssuer, checked_https
from palyra_fleet.trusted_files import UntrustedFile, read_trusted
from palyra_fleet.wire.key_sets import KeySetError, VerifyingKey, signing_keys

MAX_BYTES: Final = 256 * 1024
MAX_CA_BYTES: Final = 1024 * 1024
WITHIN_S: Final = 10.0
_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_OK: Final = 200

type Keys = dict[str, VerifyingKey]


class KeysUnreadable(Exception):
    """The issuer's keys cannot be had now; the text says why."""


class KeysWithdrawn(KeysUnreadable):
    """What the issuer says now is known, and none of it can be used: it has no key, or published a
    secret one."""


async def read_keys(issuer: TrustedIssuer, within_s: float = WITHIN_S) -> Keys:
    """The issuer's keys as they are now. Raises KeysUnreadable."""
    if issuer.jwks_file is not None:
        return await asyncio.to_thread(read_key_file, issuer.jwks_file)
    try:
        async with asyncio.timeout(within_s):
            return await _discovered(issuer)
    except TimeoutError:
        raise KeysUnreadable(f"no whole answer within {within_s:g} s") from None


def read_key_file(path: Path) -> Keys:
    """The keys of a file. Raises KeysUnreadable."""
    try:
        content, _ = read_trusted(path, MAX_BYTES)
    except UntrustedFile as error:
        raise KeysUnreadable(str(error)) from None
    except OSError as error:
        raise KeysUnreadable(f"{path}: cannot be read: {error.strerror}") from None
    return _keys(_object(content, str(path)), str(path))


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the CAs of the file, or the public ones. Raises KeysUnreadable. Blocking."""
    if ca_file is None:
        return client_context(None)
    try:
        content, _ = read_trusted(ca_file, MAX_CA_BYTES)
        return context_of(content)
    except UntrustedFile as error:
        raise KeysUnreadable(str(error)) from None
    except (OSError, ValueError):  # an ssl.SSLError is an OSError
        raise KeysUnreadable(f"{ca_file}: holds no usable CA certificates") from None


async def _discovered(issuer: TrustedIssuer) -> Keys:
    tls = await asyncio.to_thread(trusting, issuer.ca_file)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, limit=1, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": "palyra-fleet", "Accept-Encoding": "identity"},
    ) as session:
        url = issuer.url.removesuffix("/") + _WELL_KNOWN
        about = await _get(session, url)
        if about.get("issuer") != issuer.url:
            raise KeysUnreadable(f"{url}: names another issuer than the settings do")
        try:
            jwks_url = checked_https(str(about.get("jwks_uri")))
        except ValueError:
            raise KeysUnreadable(f"{url}: jwks_uri is no https address") from None
        return _keys(await _get(session, jwks_url), "its jwks_uri")


async def _get(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    try:
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status != _OK:
                raise KeysUnreadable(f"it answered {answer.status}; expected 200")
            content = await _bounded(answer)
    except (aiohttp.ClientSSLError, ssl.SSLError):
        raise KeysUnreadable("its certificate is not trusted; see ca_file") from None
    except (aiohttp.ClientConnectionError, OSError):
        raise KeysUnreadable("it cannot be reached") from None
    except (aiohttp.ClientError, ValueError):
        raise KeysUnreadable("its answer is not HTTP as expected") from None
    return _object(content, "its answer")


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for piece in answer.content.iter_chunked(16 * 1024):
        content += piece
        if len(content) > MAX_BYTES:
            break
    return bytes(content)


def _object(content: bytes, where: str) -> dict[str, Any]:
    if len(content) > MAX_BYTES:
        raise KeysUnreadable(f"{where}: is larger than {MAX_BYTES} bytes")
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        raise KeysUnreadable(f"{where}: is not JSON") from None
    if not isinstance(said, dict):
        raise KeysUnreadable(f"{where}: is not a JSON object")
    return said


def _keys(content: dict[str, Any], where: str) -> Keys:
    try:
        return signing_keys(content)
    except KeySetError as error:
        raise KeysWithdrawn(f"{where}: {error}") from None
