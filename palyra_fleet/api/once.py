"""A change that is asked for twice is made once: `Idempotency-Key` on what changes something.

A caller that lost an answer asks again with the same key and the same request, and gets the answer
of the first time; while the first is still being worked on, it waits for it. The same key for
another request is refused. Only good answers are remembered, for two minutes, a bounded number per
caller and in all, and in memory alone: after a restart the ledger's own rules decide. An answer may
hold the secret of a lease, which is why it is kept no longer. The work is finished even if who
asked goes away. Times: Unix ms. Source: draft-ietf-httpapi-idempotency-key-header.
"""

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from palyra_fleet.api.answers import SEQ_HEADER
from palyra_fleet.api.callers import Identity, SignedRequest
from palyra_fleet.api.problems import ApiReason, ApiRefusal
from palyra_fleet.identity.refusals import NodeRefused
from palyra_fleet.nodes.capability_refusals import CapabilityRefused
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.tasks import spawn

HEADER: Final = "Idempotency-Key"
KEPT_MS: Final = 120_000
MAX_PER_CALLER: Final = 64
MAX_IN_ALL: Final = 16_384
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes = field(repr=False)
    content_type: str
    headers: Mapping[str, str]
    """Those that belong to the change."""

    def response(self) -> web.Response:
        return web.Response(
            status=self.status,
            body=self.body,
            content_type=self.content_type,
            headers=self.headers,
        )


@dataclass(slots=True)
class _Entry:
    request_sha256: bytes
    until_unix_ms: int
    answer: "asyncio.Task[_Answer | Exception]"


type _Key = tuple[Identity, str]


@dataclass(slots=True)
class OnceOnly:
    """Answers by caller and key, oldest first."""

    _entries: OrderedDict[_Key, _Entry] = field(default_factory=OrderedDict)
    _of_caller: dict[Identity, OrderedDict[str, None]] = field(default_factory=dict)

    async def answer(
        self,
        identity: Identity,
        given: str,
        request: SignedRequest,
        work: Callable[[], Awaitable[web.StreamResponse]],
        now_unix_ms: int,
    ) -> web.StreamResponse:
        """The answer to this request, from the first time it was asked. Raises ApiRefusal."""
        if _FORM.fullmatch(given) is None:
            text = f"{HEADER}: expected 16 to 64 letters, digits, - or _"
            raise ApiRefusal(ApiReason.REQUEST_INVALID, text)
        self._forget_old(now_unix_ms)
        key, digest = (identity, given), _digest(request)
        entry = self._entries.get(key)
        if entry is None:
            task = spawn(_worked(work), "a change that is made once")
            entry = _Entry(digest, now_unix_ms + KEPT_MS, task)
            self._remember(key, entry)
        elif entry.request_sha256 != digest:
            raise ApiRefusal(ApiReason.KEY_REUSED)
        try:
            answer = await asyncio.shield(entry.answer)
        except asyncio.CancelledError:
            raise
        except BaseException:
            if self._entries.get(key) is entry:
                self._forget(key)
            raise
        if isinstance(answer, Exception):
            if self._entries.get(key) is entry:
                self._forget(key)
            raise answer
        return answer.response()

    def _remember(self, key: _Key, entry: _Entry) -> None:
        identity, given = key
        own = self._of_caller.setdefault(identity, OrderedDict())
        if len(own) >= MAX_PER_CALLER:
            self._forget((identity, next(iter(own))))
            own = self._of_caller.setdefault(identity, OrderedDict())
        if len(self._entries) >= MAX_IN_ALL:
            self._forget(next(iter(self._entries)))
        self._entries[key] = entry
        own[given] = None

    def _forget_old(self, now_unix_ms: int) -> None:
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key].until_unix_ms > now_unix_ms:
                return
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        self._entries.pop(key)
        own = self._of_caller[key[0]]
        del own[key[1]]
        if not own:
            del self._of_caller[key[0]]


async def _worked(work: Callable[[], Awaitable[web.StreamResponse]]) -> _Answer | Exception:
    """A refusal is handed over as a value: it is an answer, and no failure of the task."""
    try:
        response = await work()
    except (ApiRefusal, FleetRefusal, NodeRefused, CapabilityRefused, StoreFailed) as refusal:
        return refusal
    body = response.body if isinstance(response, web.Response) else b""
    return _Answer(
        response.status,
        body if isinstance(body, bytes) else b"",
        response.content_type,
        {name: response.headers[name] for name in (SEQ_HEADER,) if name in response.headers},
    )


def _digest(request: SignedRequest) -> bytes:
    parts = (request.method.encode(), request.target.encode(), request.body)
    return hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()
