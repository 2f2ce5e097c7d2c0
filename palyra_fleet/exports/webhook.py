"""Events as signed HTTPS requests, as Standard Webhooks asks.

One POST carries a batch: `{"type", "timestamp", "data": [documents]}`. `webhook-id` is the digest
of the body, so that the same batch sent again has the same id; `webhook-timestamp` is now, in Unix
seconds; `webhook-signature` is HMAC-SHA-256 over `id.timestamp.body` for each secret of the file,
which is read anew each time, so that a secret is changed by overlap. Any 2xx is taken; everything
else, a redirect too, is not. Nothing of an answer but its status is read, and no proxy or redirect
is followed: events go to the address of the settings and nowhere else.
Source: the Standard Webhooks specification, 1.0.0 (read November 2026).
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import aiohttp

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.exports.documents import DATASET, document_of
from palyra_fleet.exports.receiver import Undelivered
from palyra_fleet.logs.lines import dumped, moment_of
from palyra_fleet.private_files import read_private
from palyra_fleet.signals.export_counts import ExportProblem
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.wire.models import EventView

WITHIN_S: Final = 10.0
PREFIX: Final = "whsec_"
MOST_SECRETS: Final = 4
MAX_SECRET_FILE: Final = 1_024
_SECRET_BYTES: Final = (24, 64)
_TAKEN: Final = range(200, 300)
_OURS_TO_SHRINK: Final = 413
_MAX_FIELD_BYTES: Final = 8_190


class SecretFileError(Exception):
    """The file holds no secret that can be used; the text says why, and nothing of it."""


class Webhook:
    """Sends batches to one address."""

    def __init__(
        self,
        url: str,
        secret_file: Path,
        tls: ssl.SSLContext | None,
        clock: Callable[[], int] = now_unix_ms,
        within_s: float = WITHIN_S,
    ) -> None:
        """`tls` is None for plain http to loopback."""
        self._url = url
        self._secret_file = secret_file
        self._tls = tls
        self._clock = clock
        self._within_s = within_s
        self._session: aiohttp.ClientSession | None = None

    async def deliver(self, events: Sequence[EventView]) -> None:
        """One request. Raises Undelivered."""
        try:
            secrets = await asyncio.to_thread(read_secrets, self._secret_file)
        except SecretFileError:
            raise Undelivered(ExportProblem.SECRET) from None
        body = body_of(events)
        status = await self._post(body, headers_of(body, secrets, self._clock() // 1000))
        if status == _OURS_TO_SHRINK:
            raise Undelivered(ExportProblem.TOO_LARGE)
        if status not in _TAKEN:
            refused = status < 500 and status != 429
            raise Undelivered(ExportProblem.REFUSED if refused else ExportProblem.FAILED)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, body: bytes, headers: dict[str, str]) -> int:
        """The status, as soon as it is there: what follows it is not waited for."""
        try:
            async with asyncio.timeout(self._within_s):
                response = await self._open().post(
                    self._url,
                    data=body,
                    headers=headers,
                    ssl=self._tls or True,
                    allow_redirects=False,
                )
        except TimeoutError:
            raise Undelivered(ExportProblem.LATE) from None
        except (aiohttp.ClientSSLError, ssl.SSLError):
            raise Undelivered(ExportProblem.UNTRUSTED) from None
        except (aiohttp.ClientConnectionError, OSError):
            raise Undelivered(ExportProblem.UNREACHABLE) from None
        except (aiohttp.ClientError, ValueError):
            raise Undelivered(ExportProblem.FAILED) from None
        status = response.status
        if response.content.at_eof():
            response.release()
        else:
            response.close()
        return status

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._within_s),
                auto_decompress=False,
                max_line_size=_MAX_FIELD_BYTES,
                max_field_size=_MAX_FIELD_BYTES,
                headers={"User-Agent": "palyra-fleet", "Accept-Encoding": "identity"},
            )
        return self._session


def body_of(events: Sequence[EventView]) -> bytes:
    """The same bytes for the same events."""
    return dumped(
        {
            "type": DATASET,
            "timestamp": moment_of(events[-1].at_unix_ms / 1000),
            "data": [document_of(event) for event in events],
        }
    ).encode("ascii")


def headers_of(body: bytes, secrets: Sequence[bytes], now_unix_s: int) -> dict[str, str]:
    """The id, the time, and a signature for each secret."""
    message_id = f"msg_{hashlib.sha256(body).hexdigest()[:32]}"
    signed = f"{message_id}.{now_unix_s}.".encode() + body
    digests = [hmac.digest(secret, signed, "sha256") for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(now_unix_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(one).decode()}" for one in digests),
    }


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The secrets of a private file, one a line: `whsec_` and base64 of 24 to 64 bytes. Raises
    SecretFileError."""
    try:
        text = read_private(path, MAX_SECRET_FILE).decode("ascii")
    except KeyFileError as error:
        raise SecretFileError(str(error)) from None
    except UnicodeDecodeError:
        raise SecretFileError(f"{path}: is not text") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(lines) <= MOST_SECRETS:
        raise SecretFileError(f"{path}: expected one secret a line, at most {MOST_SECRETS}")
    return tuple(_secret(path, number, line) for number, line in enumerate(lines, 1))


def _secret(path: Path, number: int, line: str) -> bytes:
    least, most = _SECRET_BYTES
    expected = f"{path}:{number}: expected {PREFIX} and base64 of {least} to {most} bytes"
    if not line.startswith(PREFIX):
        raise SecretFileError(expected)
    try:
        secret = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise SecretFileError(expected) from None
    if not least <= len(secret) <= most:
        raise SecretFileError(expected)
    return secret
