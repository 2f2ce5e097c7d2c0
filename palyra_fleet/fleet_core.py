"""FleetCore: decide → make durable → apply → tell, one command at a time.

Every command runs under one lock and first settles what is due (expiries, missed heartbeats), so a
slow reaper lengthens nothing. A command that was begun is finished even if its caller goes away:
memory and store never part. A store that cannot write refuses the command; one whose last commit
has an unknown outcome refuses everything until the fleet is started again, and the proxies' view
ends, which denies.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from palyra_fleet.attestation.nonces import NonceBook
from palyra_fleet.attestation.verifier import TrustedKeys
from palyra_fleet.ledger.decision import (
    Decision,
    EnrolledKey,
    EventReason,
    EvictedWorker,
    LedgerEvent,
    Record,
)
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.order_desk import OrderDesk
from palyra_fleet.origin import nobodys_doing, with_origin
from palyra_fleet.refusals import FleetReason, FleetRefusal, Refusal
from palyra_fleet.settings import FleetSettings
from palyra_fleet.store.protocol import (
    FleetStore,
    Snapshot,
    StateUnusable,
    StoreConflict,
    StoreFailed,
)
from palyra_fleet.tasks import spawn
from palyra_fleet.view_hub import ViewHub
from palyra_fleet.violations.alarm import UnboundEvidence
from palyra_fleet.wire.keys import thumbprint_sha256

_log = logging.getLogger(__name__)


async def open_store(store: FleetStore, now_unix_ms: int) -> Snapshot:
    """Load the state, or refuse with what to do about it."""
    try:
        return await store.open(now_unix_ms)
    except StateUnusable as error:
        raise FleetRefusal(FleetReason.STATE_UNUSABLE, str(error)) from error
    except StoreFailed as error:
        raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, str(error)) from error


class FleetCore:
    """The machinery below the commands. Built from an opened store's snapshot."""

    def __init__(
        self,
        settings: FleetSettings,
        clock: Callable[[], int],
        store: FleetStore,
        snapshot: Snapshot,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._store = store
        self._epoch = snapshot.epoch
        self._lock = asyncio.Lock()
        self._closed = False
        self._store_problem: str | None = None
        self._reaper: asyncio.Task[None] | None = None
        self._manager = WorkerFleetManager(settings.policy)
        self._nonces = NonceBook(settings.policy.nonce_ttl_ms)
        self._hub = ViewHub(snapshot.epoch, snapshot.highest_fence)
        self._desk = OrderDesk(snapshot.epoch)
        self._unbound_evidence = UnboundEvidence()
        self._launchers: dict[str, bytes] = {}
        self._proxies: dict[str, tuple[str, bytes]] = {}
        self._manager.state.load(
            snapshot.records,
            snapshot.highest_fence,
            snapshot.high_water_unix_ms,
            settings.policy.heartbeat_timeout_ms,
        )
        self._learn(snapshot.records, snapshot.highest_fence)

    async def _begin(self) -> None:
        """Log the start, settle what came due meanwhile, start the reaper."""
        started = LedgerEvent(EventReason.STARTED_FLEET, "fleet", detail={"epoch": self._epoch})

        async def log_start(now_unix_ms: int) -> None:
            await self._settle(Decision(now_unix_ms, events=(started,)))

        await self._locked(log_start)
        self._reaper = spawn(self._reap_forever(), "fleet-reaper")

    async def close(self) -> None:
        """Refuse new commands, finish the one under way, end the streams, close the store."""
        self._closed = True
        self._hub.close()
        self._desk.close()
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            reaper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reaper
        async with self._lock:
            await self._store.close()

    async def reap(self) -> None:
        """Settle every deadline up to now."""

        async def nothing_more(now_unix_ms: int) -> None:
            del now_unix_ms

        await self._locked(nothing_more)

    def _now(self) -> int:
        return self._manager.effective_now(self._clock())

    def _trusted_keys(self) -> TrustedKeys:
        return TrustedKeys(self._launchers, self._proxies)

    async def _locked[T](self, act: Callable[[int], Awaitable[T]]) -> T:
        task = spawn(self._guarded(act), "fleet-command")
        result = await asyncio.shield(task)
        if isinstance(result, FleetRefusal):
            raise result
        return result

    async def _guarded[T](self, act: Callable[[int], Awaitable[T]]) -> T | FleetRefusal:
        try:
            async with self._lock:
                if self._closed:
                    raise FleetRefusal(FleetReason.CLOSED, "the fleet is shutting down")
                now_unix_ms = self._now()
                with nobodys_doing():
                    await self._settle(self._manager.reap(now_unix_ms))
                return await act(now_unix_ms)
        except FleetRefusal as refusal:
            return refusal
        except StoreFailed as failure:
            return self._store_refusal(failure)

    async def _settle(self, outcome: Decision | Refusal) -> Decision:
        """Make a decision durable, apply it, tell whom it concerns. Raises a refusal."""
        if isinstance(outcome, Refusal):
            raise FleetRefusal.of(outcome)
        outcome = with_origin(outcome)
        if outcome.durable:
            try:
                await self._store.commit(outcome)
            except StoreConflict as conflict:
                _log.error("the store refused a decision: %s", conflict)
                text = "the store refused the decision; nothing was changed"
                raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, text) from conflict
            except StoreFailed as failure:
                raise self._store_refusal(failure) from failure
            self._store_problem = None
        self._manager.apply(outcome)
        self._learn(outcome.records, outcome.highest_fence)
        self._desk.take(outcome.notices)
        return outcome

    def _store_refusal(self, failure: StoreFailed) -> FleetRefusal:
        self._store_problem = str(failure)
        if failure.ambiguous:
            self._hub.close()
        text = "the store cannot make the decision durable; nobody was told"
        return FleetRefusal(FleetReason.STORE_UNAVAILABLE, text)

    def _learn(self, records: tuple[Record, ...], highest_fence: int) -> None:
        self._hub.take(records, highest_fence)
        for record in records:
            match record:
                case EnrolledKey(kind, name, public_key):
                    thumbprint = thumbprint_sha256(public_key)
                    if kind == "launcher":
                        self._launchers[thumbprint] = public_key
                    else:
                        self._proxies[thumbprint] = (name, public_key)
                case EvictedWorker(worker_id):
                    self._desk.forget(worker_id)
                case _:
                    pass

    async def _reap_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.reap_every_ms / 1000)
            try:
                await self.reap()
            except FleetRefusal as refusal:
                _log.warning("deadlines could not be settled: %s", refusal.reason)
