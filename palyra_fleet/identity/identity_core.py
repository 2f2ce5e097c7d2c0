"""IdentityCore: decide → make durable → apply → tell, one command at a time.

Opens identity's state and keeps time. Commands run under one lock and are finished even if their
caller goes away. A store that cannot write refuses the command; after a commit of unknown outcome
everything is refused until the next start, since memory and store may have parted. Time never goes
back, also across a restart, as far as it was written.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from palyra_fleet import private_files
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity import sealed_state
from palyra_fleet.identity.authority import (
    DEVICE_LIFE_MS,
    SERVER_LIFE_MS,
    FleetCertificateAuthority,
    ServerIdentity,
)
from palyra_fleet.identity.device_ledger import IdentityLedger, Outcome
from palyra_fleet.identity.identity_store import IdentityStore
from palyra_fleet.identity.messages import RevocationNotice
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused, refuse
from palyra_fleet.identity.replay import ReplayWindow
from palyra_fleet.store.protocol import StoreConflict, StoreFailed
from palyra_fleet.store.state_directory import AUTHORITY
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.sealing import MasterKey

ROOT_FILE: Final = "gateway-ca.pem"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """`overlap_ms` may be zero: the old certificate is then revoked at the new one's first use."""

    trust_domain: str = "palyra.internal"
    server_names: tuple[str, ...] = ()
    device_life_ms: int = DEVICE_LIFE_MS
    server_life_ms: int = SERVER_LIFE_MS
    overlap_ms: int = 30_000
    allow_server_generated_keys: bool = False
    reap_every_ms: int = 1_000
    tidy_every_ms: int = 60_000

    def __post_init__(self) -> None:
        if min(self.device_life_ms, self.server_life_ms) < 60_000:
            raise ValueError("a certificate must live for a minute at least")
        if self.overlap_ms < 0 or self.reap_every_ms < 1 or self.tidy_every_ms < 1:
            raise ValueError("overlap_ms must not be negative, periods must be positive")


class IdentityCore:
    """The machinery below the commands. Made by `start`."""

    def __init__(
        self,
        state_dir: Path,
        store: IdentityStore,
        ledger: IdentityLedger,
        state: sealed_state.OpenedState,
        settings: IdentitySettings,
        clock: Callable[[], int],
    ) -> None:
        self.settings = settings
        self._state_dir = state_dir
        self._store = store
        self._ledger = ledger
        self._master = state.master
        self._pepper = state.pepper
        self._clock = clock
        self._high_water = state.high_water_unix_ms
        self._lock = asyncio.Lock()
        self._replays = ReplayWindow(after_unix_ms=0 if state.is_new else state.high_water_unix_ms)
        self._listeners: list[Callable[[RevocationNotice], None]] = []
        self._suspended: set[str] = set()
        self._forgotten: set[str] = set()
        self._unusable = False
        self._server: ServerIdentity | None = None
        self._reaper: asyncio.Task[None] | None = None
        self._authority = self._open_authority()

    @classmethod
    async def start(
        cls,
        state_dir: Path,
        master: MasterKey,
        settings: IdentitySettings | None = None,
        clock: Callable[[], int] = now_unix_ms,
    ) -> Self:
        """Raises StateUnusable, SealBroken or StoreFailed, each with what to do."""
        store = IdentityStore(state_dir)
        snapshot = await store.open()
        try:
            state = await sealed_state.open_or_make(store, snapshot, master, clock())
            ledger = IdentityLedger()
            ledger.load(state.snapshot)
            chosen = settings or IdentitySettings()
            manager = cls(state_dir, store, ledger, state, chosen, clock)
            await asyncio.to_thread(manager._publish)
        except BaseException:
            await store.close()
            raise
        manager._reaper = spawn(manager._reap_forever(), "identity-reaper")
        return manager

    async def close(self) -> None:
        """Finish the command under way, then let go of the state. Safe to call twice."""
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            reaper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reaper
        async with self._lock:
            self._unusable = True
            await self._store.close()

    def now(self) -> int:
        """The clock's time, which never goes back."""
        self._high_water = max(self._high_water, self._clock())
        return self._high_water

    def subscribe(self, listener: Callable[[RevocationNotice], None]) -> Callable[[], None]:
        """Be told of every revocation, on the loop; the answer ends the subscription."""
        self._listeners.append(listener)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return end

    async def settle(self) -> None:
        """Write down the overlaps that have ended, and tell of them."""

        async def settle(now: int) -> None:
            decision = self._ledger.settle(now)
            if decision is not None:
                await self._settle(decision)

        await self._locked(settle)

    async def tidy(self) -> None:
        """Retire authorities nobody needs, forget what ended long ago."""

        async def tidy(now: int) -> None:
            decision = self._ledger.tidy(now)
            if decision is not None:
                await self._settle(decision)

        await self._locked(tidy)

    async def _locked[T](self, act: Callable[[int], Awaitable[T]]) -> T:
        task = spawn(self._guarded(act), "identity-command")
        result = await asyncio.shield(task)
        if isinstance(result, NodeRefused):
            raise result
        return result

    async def _guarded[T](self, act: Callable[[int], Awaitable[T]]) -> T | NodeRefused:
        async with self._lock:
            if self._unusable:
                return NodeRefused(refuse(NodeReason.STORE_UNAVAILABLE))
            try:
                return await act(self.now())
            except NodeRefused as refused:
                return refused

    async def _settle(self, outcome: Outcome) -> None:
        """Make durable, apply, tell. Raises NodeRefused."""
        if isinstance(outcome, NodeRefusal):
            raise NodeRefused(outcome)
        if outcome.durable:
            try:
                await self._store.commit(outcome)
            except (StoreConflict, StoreFailed) as failure:
                _log.error("identity could not be written: %s", failure)
                self._unusable = isinstance(failure, StoreFailed) and failure.ambiguous
                raise NodeRefused(refuse(NodeReason.STORE_UNAVAILABLE)) from failure
        self._ledger.apply(outcome)
        if outcome.authorities:
            self._authority = self._open_authority()
            await asyncio.to_thread(self._publish)
        self._tell(outcome.notices)

    def _tell(self, notices: Sequence[RevocationNotice]) -> None:
        loop = asyncio.get_running_loop()
        for notice in notices:
            for listener in self._listeners:
                loop.call_soon(listener, notice)

    def _open_authority(self) -> FleetCertificateAuthority:
        trusted = self._ledger.trusted_authorities()
        return FleetCertificateAuthority(trusted, self._master, self.settings.trust_domain)

    def _publish(self) -> None:
        """The trusted roots as a file, for those who connect to us; it also marks that we exist."""
        folder = self._state_dir / AUTHORITY
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)  # noqa: PTH102 (the mode counts)
        private_files.replace(folder / ROOT_FILE, self._authority.trust_bundle_pem.encode())
        private_files.sync_directory(self._state_dir)

    async def _reap_forever(self) -> None:
        tidied_at = self.now()
        while True:
            await asyncio.sleep(self.settings.reap_every_ms / 1000)
            try:
                await self.settle()
                if self.now() - tidied_at >= self.settings.tidy_every_ms:
                    tidied_at = self.now()
                    await self.tidy()
            except NodeRefused as refused:
                _log.warning("identity could not be tidied: %s", refused.refusal.reason.value)
