"""NodeService: what nodes and operators may ask about nodes, without a transport.

It joins the memory (`NodeRuntimeState`), the rules of capabilities (`CapabilityDesk`), the open
streams and the identity. Whoever waits for a capability waits here, at most as long as the desk
gives a request; when they go, the request goes. A revocation that the identity tells of ends the
device's streams, requests and record. Times: Unix ms.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ulid import ULID

from palyra_fleet.identity.messages import RevocationNotice
from palyra_fleet.identity.ports import NodeIdentity, Pairing
from palyra_fleet.identity.refusals import NodeReason, NodeRefused, refuse
from palyra_fleet.nodes.capabilities import (
    CapabilityAsk,
    CapabilityDesk,
    CapabilityDispatch,
    CapabilityLimits,
    CapabilityResult,
    capabilities_refusal,
)
from palyra_fleet.nodes.capability_refusals import (
    CapabilityReason,
    CapabilityRefusal,
    CapabilityRefused,
)
from palyra_fleet.nodes.events import MediationReport, ResultReport, read_event
from palyra_fleet.nodes.pruning import KeepRequests
from palyra_fleet.nodes.records import (
    CapabilityRequestRecord,
    DeviceCapabilityRecord,
    RegisteredNodeRecord,
)
from palyra_fleet.nodes.runtime_state import NodeRuntimeState
from palyra_fleet.nodes.streams import Notice, NoticeKind, StreamLimits, StreamRegistry
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.tasks import spawn

MAX_CAPABILITIES: Final = 128
MAX_PLATFORM: Final = 64
_MAX_REFUSED: Final = 1_000_000
_PRUNE_EVERY: Final = 64
HOUSEKEEPING_EVERY_S: Final = 60.0

_log = logging.getLogger(__name__)


class NodeService:
    """See the module. Close it before the state."""

    def __init__(
        self,
        state: NodeRuntimeState,
        pairing: Pairing,
        identity: NodeIdentity,
        clock: Callable[[], int],
        *,
        capability_limits: CapabilityLimits | None = None,
        stream_limits: StreamLimits | None = None,
        keep: KeepRequests | None = None,
    ) -> None:
        self.state = state
        self.pairing = pairing
        self.identity = identity
        self.clock = clock
        self.streams = StreamRegistry(stream_limits)
        self._desk = CapabilityDesk(capability_limits or CapabilityLimits())
        self._keep = keep or KeepRequests()
        self._waiting: dict[str, asyncio.Future[CapabilityResult]] = {}
        self._asked = 0
        self._unsubscribe = identity.subscribe(self._revoked)
        self._housekeeping = spawn(self._keep_house(), "nodes' housekeeping")

    def close(self) -> None:
        """End the streams and tell whoever waits."""
        self._unsubscribe()
        self._housekeeping.cancel()
        self.streams.end_all()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(
                    CapabilityRefused(CapabilityRefusal(CapabilityReason.CLOSING))
                )

    # --- nodes ---

    async def register(
        self, device_id: str, platform: str, capabilities: tuple[DeviceCapabilityRecord, ...]
    ) -> RegisteredNodeRecord:
        """Raises CapabilityRefused or StoreFailed."""
        if not 1 <= len(platform) <= MAX_PLATFORM or not platform.isprintable():
            raise CapabilityRefused(CapabilityRefusal(CapabilityReason.PLATFORM))
        names = (capability.name for capability in capabilities)
        refused = capabilities_refusal(names, MAX_CAPABILITIES)
        if refused is not None:
            raise CapabilityRefused(refused)
        node = await self.state.register_node(device_id, platform, capabilities, self.clock())
        self.streams.wake(device_id)  # it may be able to do now what waited for it
        return node

    def event(self, device_id: str, name: str, payload_json: bytes) -> CapabilityRefusal | None:
        """A node's event; a refusal if it reports on what is not its own. Raises
        CapabilityRefused for what is no event at all."""
        meant = read_event(name, payload_json)
        now = self.clock()
        self.state.touch_node(device_id, name, now)
        match meant:
            case None:
                return None
            case MediationReport():
                answer = self._desk.awaiting_mediation(device_id, meant.request_id, now)
                if isinstance(answer, CapabilityRefusal):
                    return self._refused_report(device_id, meant.request_id, answer)
                self._note(answer)
                return None
            case ResultReport():
                ended = self._desk.result(device_id, meant.request_id, meant.result, now)
                if isinstance(ended, CapabilityRefusal):
                    return self._refused_report(device_id, meant.request_id, ended)
                record, told = ended
                self._note(record)
                self._tell(meant.request_id, told)
                return None

    def next_dispatch(self, device_id: str) -> CapabilityDispatch | None:
        """At most one request for this node to work on."""
        found = self._desk.next_dispatch(self.state.nodes.get(device_id), self.clock())
        if found is None:
            return None
        self._note(found[1])
        return found[0]

    def notify(self, device_id: str, kind: NoticeKind, subject_id: str, reason: str) -> bool:
        """Tell a node; False if it is not connected."""
        return self.streams.notify(device_id, self.notice(kind, subject_id, reason))

    def notice(self, kind: NoticeKind, subject_id: str, reason: str) -> Notice:
        return Notice(str(ULID()), kind, subject_id, reason, self.clock())

    # --- capabilities ---

    async def execute(self, asked: CapabilityAsk) -> CapabilityResult:
        """Ask a node and wait for its answer. Raises CapabilityRefused."""
        request_id = str(ULID())
        node = self.state.nodes.get(asked.device_id)
        now = self.clock()
        for over in self._desk.expire(now):
            self._note(over)
        record = self._desk.ask(request_id, asked, node, now)
        if isinstance(record, CapabilityRefusal):
            raise CapabilityRefused(record)
        self._note_new(record)
        waiting: asyncio.Future[CapabilityResult] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = waiting
        self.streams.wake(asked.device_id)
        try:
            async with asyncio.timeout(self._desk.limits.timeout_ms / 1000):
                return await waiting
        except TimeoutError:
            raise CapabilityRefused(CapabilityRefusal(CapabilityReason.TIMED_OUT)) from None
        finally:
            del self._waiting[request_id]
            left = self._desk.give_up(request_id, self.clock())
            if left is not None:
                self._note(left)

    def decide_request(
        self, request_id: str, *, approve: bool, decided_by: str, reason: str = ""
    ) -> CapabilityRequestRecord:
        """An operator's word on what needs one. Raises CapabilityRefused."""
        record = self._desk.decide(
            request_id, approve=approve, decided_by=decided_by, reason=reason, now=self.clock()
        )
        if isinstance(record, CapabilityRefusal):
            raise CapabilityRefused(record)
        self._note(record)
        if approve:
            self.streams.wake(record.device_id)
        else:
            self._tell(request_id, CapabilityResult(False, b"", "rejected by an operator"))
        return record

    def input_of(self, request_id: str) -> bytes | None:
        """What an open request would do, for the operator who decides on it."""
        return self._desk.input_of(request_id)

    async def _keep_house(self) -> None:
        """A store that fails is tried again a minute later."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)
            try:
                await self.keep_house()
            except (NodeRefused, StoreFailed) as error:
                _log.error("the nodes' housekeeping failed: %s", error)

    async def keep_house(self) -> None:
        """What expired is written down as such; finished requests that are old are forgotten."""
        await self.pairing.sweep()
        for over in self._desk.expire(self.clock()):
            self._note(over)
        self.state.prune(self.clock(), self._keep)

    def _note(self, record: CapabilityRequestRecord) -> None:
        """Remember where a request stands. The desk does not count refused reports; we do."""
        known = self.state.capability_requests.get(record.request_id)
        counted = max(record.refused_results, known.refused_results if known else 0)
        self.state.note_request(replace(record, refused_results=counted))

    def _note_new(self, record: CapabilityRequestRecord) -> None:
        self._note(record)
        self._asked += 1
        if self._asked % _PRUNE_EVERY == 0:
            self.state.prune(self.clock(), self._keep)

    def _tell(self, request_id: str, result: CapabilityResult) -> None:
        waiting = self._waiting.get(request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)

    def _refused_report(
        self, device_id: str, request_id: str, refusal: CapabilityRefusal
    ) -> CapabilityRefusal:
        """A late or foreign report: counted at the request it names, if there is one."""
        known = self.state.capability_requests.get(request_id)
        if known is not None and known.refused_results < _MAX_REFUSED:
            self._note(replace(known, refused_results=known.refused_results + 1))
        whose = "its own" if known is not None and known.device_id == device_id else "another's"
        _log.warning(
            "node %s reported on a request that is not open for it (%s)",
            device_id,
            whose if known is not None else "unknown",
        )
        return refusal

    # --- revocation ---

    def _revoked(self, notice: RevocationNotice) -> None:
        """The identity's word: these certificates are no longer good."""
        fingerprints = None if notice.device_gone else notice.fingerprints
        self.streams.end(notice.device_id, fingerprints, refuse(NodeReason.GATE_REVOKED))
        if notice.device_gone:
            gone = CapabilityResult(False, b"", "the device was revoked or removed")
            for record in self._desk.forget_device(notice.device_id, self.clock()):
                self._note(record)
                self._tell(record.request_id, gone)
            _ = spawn(self._forget_node(notice.device_id), f"forget node {notice.device_id}")

    async def _forget_node(self, device_id: str) -> None:
        try:
            await self.state.remove_node(device_id)
        except StoreFailed as error:
            _log.error("the record of revoked node %s is still there: %s", device_id, error)
