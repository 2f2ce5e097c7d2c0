"""NodeRuntimeState: the memory of pairing, nodes and capability requests, kept in one file.

Two ways to change it. What somebody is told about goes through `commit`: the change is in the file,
durably, before it is in memory and before the call returns; many at once share one write. What only
keeps the picture fresh (a heartbeat, a request's progress) changes memory at once and reaches the
file within `coalesce_ms`. A write that may or may not have happened closes the state: nothing more
is accepted until a restart has read what is really there. One process at a time (`flock`).
Times: Unix ms.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from palyra_fleet.identity.records import (
    PairingChange,
    PairingSnapshot,
)
from palyra_fleet.nodes.generations import GenerationFile, WriteFailed
from palyra_fleet.nodes.pruning import KeepRequests, settled, to_prune
from palyra_fleet.nodes.records import (
    CapabilityRequestRecord,
    DeviceCapabilityRecord,
    RegisteredNodeRecord,
)
from palyra_fleet.nodes.runtime_file import (
    FILE_NAME,
    SECTIONS,
    NotRuntimeState,
    PersistedNodeRuntimeState,
    Record,
    encode_record,
    parse,
    render,
    section_of,
)
from palyra_fleet.store import state_directory
from palyra_fleet.store.protocol import StateUnusable, StoreFailed
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import KeyFileError

LOCK_NAME: Final = "node-runtime.lock"
COALESCE_MS: Final = 1_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """One record put or, with None, removed."""

    section: str
    key: str
    record: Record | None


@dataclass(frozen=True, slots=True)
class _Waiting:
    changes: tuple[Change, ...]
    done: asyncio.Future[None]


class NodeRuntimeState:
    """See the module. Open with `open`, and close."""

    def __init__(
        self, file: GenerationFile, state: PersistedNodeRuntimeState, lock: int, coalesce_ms: int
    ) -> None:
        self._file = file
        self._state = state
        self._lock = lock
        self._coalesce_ms = coalesce_ms
        self._encoded: dict[str, dict[str, bytes]] = {section: {} for section in SECTIONS}
        self._stale: set[tuple[str, str]] = set()
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._lost: str | None = None
        self._writer: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        now_unix_ms: int,
        *,
        must_exist: bool = False,
        coalesce_ms: int = COALESCE_MS,
    ) -> "NodeRuntimeState":
        """Read the state, or begin a new one. Raises StateUnusable with what to do.

        `must_exist`: this fleet had nodes before, so a missing file is a loss and no beginning.
        Requests that were open are failed: whoever waited for them has gone.
        """
        state_directory.prepare(state_dir)
        lock = state_directory.lock(state_dir, LOCK_NAME)
        try:
            file = GenerationFile(state_dir / FILE_NAME)
            loaded = read_state(file, must_exist=must_exist)
            state = cls(file, loaded, lock, coalesce_ms)
            for section in SECTIONS:
                state._stale |= {(section, key) for key in section_of(loaded, section)}
            for request in settled(loaded.capability_requests.values(), now_unix_ms):
                loaded.capability_requests[request.request_id] = request
            await state._write()
        except WriteFailed as error:
            os.close(lock)
            raise StateUnusable(str(error)) from error
        except BaseException:
            os.close(lock)
            raise
        state._writer = spawn(state._write_forever(), "node runtime state")
        return state

    async def close(self) -> None:
        """Write what is not written yet, and let another process have the state."""
        self._closing = True
        self._wake.set()
        try:
            if self._writer is not None:
                await self._writer
        finally:
            if self._timer is not None:
                self._timer.cancel()
            os.close(self._lock)

    @property
    def trouble(self) -> str | None:
        """Why nothing more is accepted, if so."""
        return self._lost

    # --- pairing: the store of `palyra_fleet.identity` ---

    def pairing_snapshot(self) -> PairingSnapshot:
        return PairingSnapshot(
            tuple(self._state.active_pairing_codes.values()),
            tuple(self._state.pairing_requests.values()),
        )

    async def commit_pairing(self, change: PairingChange) -> None:
        codes, requests = "active_pairing_codes", "pairing_requests"
        await self.commit(
            [Change(codes, code.code_hash, code) for code in change.put_codes]
            + [Change(codes, code_hash, None) for code_hash in change.remove_codes]
            + [Change(requests, request.request_id, request) for request in change.put_requests]
            + [Change(requests, request_id, None) for request_id in change.remove_requests]
        )

    # --- nodes ---

    @property
    def nodes(self) -> Mapping[str, RegisteredNodeRecord]:
        return MappingProxyType(self._state.nodes)

    async def register_node(
        self,
        device_id: str,
        platform: str,
        capabilities: tuple[DeviceCapabilityRecord, ...],
        now_unix_ms: int,
    ) -> RegisteredNodeRecord:
        """Remember a node, or what it says of itself now. Durable. Raises StoreFailed.

        One that comes back and says what is on disk already costs no write of its own.
        """
        known = self._state.nodes.get(device_id)
        if known is not None and (known.platform, known.capabilities) == (platform, capabilities):
            self._raise_if_closed()
            node = replace(known, last_seen_at_unix_ms=max(now_unix_ms, known.last_seen_at_unix_ms))
            self._state.nodes[device_id] = node
            self._soon("nodes", device_id)
            return node
        node = RegisteredNodeRecord(
            device_id=device_id,
            platform=platform,
            capabilities=capabilities,
            registered_at_unix_ms=known.registered_at_unix_ms if known else now_unix_ms,
            last_seen_at_unix_ms=now_unix_ms,
            last_event_name=known.last_event_name if known else None,
            last_event_at_unix_ms=known.last_event_at_unix_ms if known else None,
        )
        await self.commit([Change("nodes", device_id, node)])
        return node

    def touch_node(self, device_id: str, event_name: str, now_unix_ms: int) -> None:
        """A node was heard. One that is not registered is not remembered by this."""
        known = self._state.nodes.get(device_id)
        if known is not None:
            self._state.nodes[device_id] = replace(
                known,
                last_seen_at_unix_ms=max(now_unix_ms, known.last_seen_at_unix_ms),
                last_event_name=event_name,
                last_event_at_unix_ms=now_unix_ms,
            )
            self._soon("nodes", device_id)

    async def remove_node(self, device_id: str) -> None:
        """Forget a node. Durable. Raises StoreFailed."""
        if device_id in self._state.nodes:
            await self.commit([Change("nodes", device_id, None)])

    # --- capability requests ---

    @property
    def capability_requests(self) -> Mapping[str, CapabilityRequestRecord]:
        return MappingProxyType(self._state.capability_requests)

    def note_request(self, request: CapabilityRequestRecord) -> None:
        """A request's progress. Reaches the file soon."""
        self._state.capability_requests[request.request_id] = request
        self._soon("capability_requests", request.request_id)

    def prune(self, now_unix_ms: int, keep: KeepRequests) -> int:
        """Forget finished requests that are old or too many; answers how many."""
        gone = to_prune(self._state.capability_requests.values(), now_unix_ms, keep)
        for request_id in gone:
            del self._state.capability_requests[request_id]
            self._soon("capability_requests", request_id)
        return len(gone)

    # --- writing ---

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make changes durable, all or none, then take them over. Raises StoreFailed."""
        if not changes:
            return
        self._raise_if_closed()
        waiting = _Waiting(tuple(changes), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        # whoever stops waiting does not stop the change: it is on its way to the disk
        await asyncio.shield(waiting.done)

    def _raise_if_closed(self) -> None:
        if self._lost is not None or self._closing:
            raise StoreFailed(self._lost or "the node state is closed", ambiguous=False)

    def _soon(self, section: str, key: str) -> None:
        self._stale.add((section, key))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                self._coalesce_ms / 1000, self._wake.set
            )

    async def _write_forever(self) -> None:
        try:
            await self._write_until_closed()
        finally:
            # also after a failure of ours: nobody waits for a writer that is no more
            self._lost = self._lost or "the node state is closed"
            for waiting in self._waiting:
                _refuse(waiting, StoreFailed(self._lost, ambiguous=False))

    async def _write_until_closed(self) -> None:
        while not (self._closing and not self._waiting and not self._stale):
            await self._wake.wait()
            self._wake.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            try:
                await self._write()
            except WriteFailed as error:
                _log.error("node state: %s", error)
                if error.ambiguous:
                    self._lost = f"{error}; what is on disk is unknown, restart the fleet"
                if self._closing:
                    return
                self._soon_again()

    def _soon_again(self) -> None:
        """What memory holds and the file does not is tried again, unless the state is lost."""
        if self._stale and self._lost is None and self._timer is None:
            section, key = next(iter(self._stale))
            self._soon(section, key)

    async def _write(self) -> None:
        """One write for everything that waits. Raises WriteFailed after telling who waited."""
        batch, self._waiting = self._waiting, []
        stale, self._stale = self._stale, set()
        if not batch and not stale and self._state.generation:
            return
        try:
            if self._lost is not None:
                raise WriteFailed(self._lost, ambiguous=False)
            for section, key in stale:
                self._encode(section, key, section_of(self._state, section).get(key))
            for change in (change for waiting in batch for change in waiting.changes):
                self._encode(change.section, change.key, change.record)
            generation = self._state.generation + 1
            content = render(generation, self._encoded)
            await asyncio.to_thread(self._file.write, content)
        except BaseException as error:
            # what was drafted and is not believed goes back to what memory holds
            self._stale |= stale
            self._stale |= {(c.section, c.key) for waiting in batch for c in waiting.changes}
            ambiguous = not isinstance(error, WriteFailed) or error.ambiguous
            for waiting in batch:
                _refuse(waiting, StoreFailed("the node state cannot be written", ambiguous))
            raise
        self._state.generation = generation
        for waiting in batch:
            for change in waiting.changes:
                self._take_over(change)
            if not waiting.done.done():
                waiting.done.set_result(None)

    def _take_over(self, change: Change) -> None:
        records = section_of(self._state, change.section)
        if change.record is None:
            records.pop(change.key, None)
        else:
            records[change.key] = change.record

    def _encode(self, section: str, key: str, record: Record | None) -> None:
        if record is None:
            self._encoded[section].pop(key, None)
        else:
            self._encoded[section][key] = encode_record(section, record)


def _refuse(waiting: _Waiting, failure: StoreFailed) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(failure)


def read_state(file: GenerationFile, *, must_exist: bool = False) -> PersistedNodeRuntimeState:
    """What the file holds; nothing yet where none was. Raises StateUnusable with the way back."""
    try:
        content = file.read()
    except KeyFileError as error:
        raise StateUnusable(str(error)) from error
    if content is None:
        earlier = file.last_good(parse)
        if earlier is None and not must_exist:
            return PersistedNodeRuntimeState()
        raise StateUnusable(f"{file.path} is missing. {_way_back(earlier)}")
    try:
        return parse(content)
    except NotRuntimeState as error:
        text = f"{file.path} cannot be used: {error}. {_way_back(file.last_good(parse))}"
        raise StateUnusable(text) from error


def _way_back(earlier: Path | None) -> str:
    if earlier is None:
        return (
            "No earlier generation of it can be used either: restore one from a backup with"
            " `palyra-fleet node-state restore --from FILE`"
        )
    return (
        f"The last good generation is {earlier}:"
        f" `palyra-fleet node-state restore --from {earlier}` puts it back"
    )
