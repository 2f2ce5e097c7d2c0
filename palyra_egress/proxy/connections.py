"""Which client connections are open, and whose they are, so that a sweep touches only its worker.

A connection is counted from accept to close; it belongs to a worker from its first verified request
on. Those that belong to nobody yet have a quarter of the places; beyond it one that has waited
makes room for each new one, so that whoever only connects takes no place from who speaks. A sweep
goes over its connections in the order of what it costs to be late: first nothing more leaves of any
of them, then every worker's side is reset, and only then are they closed and unwound, one in each
pass of the loop, so that the others are served, and evidence leaves, in between.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Final, Protocol

from palyra_egress.proxy.bindings import Ended
from palyra_egress.proxy.bounds.caps import CAPS
from palyra_egress.proxy.bounds.strangers import Strangers
from palyra_egress.proxy.channels.channel import Channel
from palyra_egress.proxy.doors.redirected import Address
from palyra_egress.reasons import Reason
from palyra_egress.request import Requester
from palyra_fleet.logs.faults import fault_of

STRANGERS_PART: Final = 4  # one part in so many of the places is for those that belong to nobody
PATIENCE_MS: Final = 1_000  # with those beyond it, while there are places: many may start at once


_log = logging.getLogger(__name__)


class LiveConnection(Protocol):
    """One client connection that can be cut, in four steps."""

    @property
    def requester(self) -> Requester | None: ...

    @property
    def channel(self) -> Channel | None: ...

    @property
    def destination(self) -> Address | None:
        """Where it was headed for, if it was redirected."""
        ...

    @property
    def source(self) -> str:
        """Where it comes from, as strangers are counted."""
        ...

    def make_room(self) -> None:
        """End it for another one; it has not shown whose it is."""
        ...

    def stop_sending(self, reason: Reason) -> None:
        """Reset what leads to servers."""
        ...

    def hang_up(self) -> None:
        """Reset the worker's side."""
        ...

    def keep_quiet(self) -> None:
        """Let the ends of what was reset wake nobody."""
        ...

    def unwind(self) -> None:
        """End what still runs for it."""
        ...

    def review(self) -> None:
        """Judge again what is open here, and cut it if it is not allowed any more."""
        ...


@dataclass(slots=True)
class ConnectionTable:
    """All open connections, and by worker those that showed whose they are."""

    max_connections: int = CAPS.connections
    max_per_worker: int = CAPS.connections_per_worker
    _all: set[LiveConnection] = field(default_factory=set)
    _by_worker: dict[str, set[LiveConnection]] = field(default_factory=dict)
    _empty: asyncio.Event = field(default_factory=asyncio.Event)
    _strangers: Strangers[LiveConnection] = field(default_factory=Strangers)
    _unwinding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _severed: set[LiveConnection] = field(default_factory=set)
    _to_unwind: deque[LiveConnection] = field(default_factory=deque)

    async def turn_to_unwind(self) -> None:
        """Wait until a cut connection may take its next step: one of them in each pass of the loop,
        so that a sweep over hundreds leaves the loop to everybody else."""
        async with self._unwinding:
            await asyncio.sleep(0)

    async def wait_until_empty(self, deadline_s: float) -> None:
        """Wait until every connection is closed, at most `deadline_s` seconds."""
        if not self._all:
            return
        self._empty.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()

    def __len__(self) -> int:
        return len(self._all)

    def by_worker(self) -> dict[str, int]:
        """How many each worker has, of those that showed whose they are."""
        return {worker_id: len(held) for worker_id, held in self._by_worker.items()}

    def admit(self, connection: LiveConnection, now_monotonic_ms: int) -> bool:
        """Count a new connection; False when there are too many already and none makes room."""
        is_full = len(self._all) >= self.max_connections
        if is_full or len(self._strangers) >= self.max_connections // STRANGERS_PART:
            patience_ms = 0 if is_full else PATIENCE_MS
            stranger = self._strangers.to_make_room(now_monotonic_ms - patience_ms)
            if stranger is not None:
                self._let_go(stranger)
                stranger.make_room()
            elif is_full:
                return False
        self._all.add(connection)
        channel = connection.channel
        source = connection.source if channel is None else f"worker {channel.worker_id}"
        self._strangers.add(connection, source, now_monotonic_ms)
        return True

    def _let_go(self, connection: LiveConnection) -> None:
        self._all.discard(connection)
        self._strangers.remove(connection)

    def identify(self, connection: LiveConnection, worker_id: str) -> bool:
        """Note whose connection this is; False when that worker has too many."""
        held = self._by_worker.setdefault(worker_id, set())
        if connection not in held and len(held) >= self.max_per_worker:
            return False
        held.add(connection)
        self._strangers.remove(connection)
        return True

    def forget(self, connection: LiveConnection) -> None:
        """The connection is closed."""
        self._let_go(connection)
        self._severed.discard(connection)
        if not self._all:
            self._empty.set()
        who = connection.requester
        if who is not None and (held := self._by_worker.get(who.worker_id)) is not None:
            held.discard(connection)
            if not held:
                del self._by_worker[who.worker_id]

    def cut(self, ended: Ended, spare: LiveConnection | None = None) -> int:
        """Abort every connection of these workers, leases and certificates, or every one there is;
        how many were cut."""
        if ended.everything is not None:
            return self.cut_everything(ended.everything)
        hit = {c for worker in ended.worker_ids for c in self._by_worker.get(worker, ())}
        if ended.lease_ids:
            hit |= {
                connection
                for held in self._by_worker.values()
                for connection in held
                if (who := connection.requester) is not None and who.lease_id in ended.lease_ids
            }
        if ended.certificates:
            hit |= {
                connection
                for connection in self._all
                if connection.channel is not None
                and connection.channel.certificate in ended.certificates
            }
        return self.sever(hit - {spare}, Reason.NO_LEASE)

    def sever(self, hit: Set[LiveConnection], reason: Reason) -> int:
        """Cut those that were not cut before; how many that are."""
        hit = hit - self._severed
        self._severed |= hit
        _each(hit, lambda connection: connection.stop_sending(reason))
        _each(hit, lambda connection: connection.hang_up())
        _each(hit, lambda connection: connection.keep_quiet())
        is_idle = not self._to_unwind
        self._to_unwind.extend(hit)
        if hit and is_idle:
            asyncio.get_running_loop().call_soon(self._unwind_next)
        return len(hit)

    def _unwind_next(self) -> None:
        """Unwind one; the next has its turn in the next pass."""
        connection = self._to_unwind.popleft()
        if self._to_unwind:
            asyncio.get_running_loop().call_soon(self._unwind_next)
        _each({connection}, lambda one: one.unwind())

    def on_channels(self) -> list[LiveConnection]:
        """Those that came in by a channel."""
        return [connection for connection in self._all if connection.channel is not None]

    def review(self) -> None:
        """Have every open connection judged again."""
        self.sever(_each(self._all, lambda connection: connection.review()), Reason.INTERNAL)

    def cut_everything(self, reason: Reason) -> int:
        """Abort every connection there is; how many that are."""
        return self.sever(self._all, reason)


def _each(
    connections: Set[LiveConnection], step: Callable[[LiveConnection], None]
) -> set[LiveConnection]:
    """Take a step with each, whatever fails with one of them; those with which it failed."""
    failed = dict[LiveConnection, Exception]()
    for connection in set(connections):
        try:
            step(connection)
        except Exception as fault:  # noqa: BLE001 what fails is told, and stops no sweep
            failed[connection] = fault
    for error in failed.values():  # only now: telling takes its time, and may fail itself
        _log.error("a step with an open connection failed: %s", fault_of(error))
    return set(failed)
