"""Entries of the log that are owed: their change was made, and the log could not be written then.

What the ledger does not hold (pairing, devices, what nodes are asked) is changed in a store of its
own, so that change and entry are not one transaction. Where the entry fails the caller is told 503.
From there on the entry is owed: it is written before anything else of this kind is changed, and
while it cannot be, nothing is. Who asks the same again gets the answer of the change that was made,
and it is not made twice; such an answer is kept for two minutes, but that to a device's removal and
to a demand on one only until a device is let in: it may be the same. In memory: a crash between
the two leaves the change in the identity's own log and the nodes' records alone.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from palyra_fleet.ledger.decision import Detail, EventReason
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.service.origin import ORIGIN, Origin

KEPT_S: Final = 120.0
_LATER_S: Final = 0.1
"""A loop may call a little early, by what its clock can tell apart."""
MAX_KEPT: Final = 64
_OF_WHO_WAS_THERE: Final = frozenset(
    {EventReason.DEVICE_REMOVED, EventReason.DEVICE_ROTATION_DEMANDED}
)
"""Changes that say nothing of a device that was let in after them."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the log gets about one change, with where the call came from."""

    reason: EventReason
    actor: str
    about: Detail
    origin: Origin | None

    async def write(self, service: FleetService) -> None:
        """Durable when this returns. Raises FleetRefusal."""
        before = ORIGIN.set(self.origin)
        try:
            await service.record_event(self.reason, self.actor, self.about)
        finally:
            ORIGIN.reset(before)

    @property
    def seq(self) -> int | None:
        """The number of the last entry of its call, once one is written."""
        return None if self.origin is None else self.origin.written.seq


@dataclass(frozen=True, slots=True)
class _Kept:
    entry: Entry
    response: web.StreamResponse = field(repr=False)
    until_s: float


@dataclass(slots=True)
class OwedEntries:
    """One per fleet: the admin API and the console share it."""

    _owed: deque[Entry] = field(default_factory=deque)
    _kept: OrderedDict[Hashable, _Kept] = field(default_factory=OrderedDict)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def noted(
        self,
        service: FleetService,
        work: Callable[[], Awaitable[web.StreamResponse]],
        asked: Hashable,
        entry: Entry,
    ) -> tuple[web.StreamResponse, int | None]:
        """Make the change and write its entry; the answer, and the entry's number. `asked` is equal
        for who asks the same again. Raises FleetRefusal where either cannot be."""
        await self._settle(service)
        self._forget_old()
        before = self._kept.pop(asked, None)
        if before is not None:
            return before.response, before.entry.seq
        response = await work()
        if entry.reason is EventReason.PAIRING_APPROVED:
            self._forget_who_was_there()
        try:
            await entry.write(service)
        except FleetRefusal:
            _log.error("%s was done, and its entry is owed to the event log", entry.reason)
            self._owed.append(entry)
            self._keep(asked, entry, response)
            raise
        return response, entry.seq

    async def _settle(self, service: FleetService) -> None:
        async with self._writing:
            while self._owed:
                await self._owed[0].write(service)
                self._owed.popleft()

    def _keep(self, asked: Hashable, entry: Entry, response: web.StreamResponse) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._kept.popitem(last=False)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + KEPT_S
        self._kept[asked] = _Kept(entry, response, until_s)
        self._kept.move_to_end(asked)
        loop.call_at(until_s + _LATER_S, self._forget_old)

    def _forget_who_was_there(self) -> None:
        for asked, one in list(self._kept.items()):
            if one.entry.reason in _OF_WHO_WAS_THERE:
                del self._kept[asked]

    def _forget_old(self) -> None:
        now_s = asyncio.get_running_loop().time()
        while self._kept and next(iter(self._kept.values())).until_s <= now_s:
            self._kept.popitem(last=False)


def same_request(
    handler: Callable[..., Any], actor: str, parts: Mapping[str, str], body: bytes
) -> Hashable:
    """Equal for the same change asked for by the same principal in the same words."""
    return handler, actor, tuple(sorted(parts.items())), hashlib.sha256(body).digest()
