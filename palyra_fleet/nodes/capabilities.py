"""CapabilityDesk: what nodes are asked to do, from the asking to the answer, as a state machine.

    asked ─┬────────────▶ queued ─▶ dispatched ─┬─▶ awaiting_local_mediation ─┬─▶ succeeded, failed
           └▶ awaiting_local_mediation ─┬─▲     └──────────────┬──────────────┘
              (an operator must agree)  └▶ rejected            └▶ timed_out (from any open state)

A request goes to the one node it names, only while that node says the capability is available, and
one per answer. Only that node may report on it, only after it was dispatched, only while it is
open; anything else is refused and counted. Payloads are bounded both ways. Inputs live in memory
only, and go with the end of their request. Times: Unix ms. Pure.
"""

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final

from palyra_fleet.nodes.capability_refusals import CapabilityReason, CapabilityRefusal
from palyra_fleet.nodes.records import (
    CapabilityRequestRecord,
    CapabilityState,
    RegisteredNodeRecord,
)
from palyra_fleet.nodes.strict_json import strict_json
from palyra_fleet.nodes.summaries import payload_summary, text_summary

TIMEOUT_MS: Final = 30_000
MAX_PAYLOAD_BYTES: Final = 1024 * 1024
DEFAULT_PAYLOAD_BYTES: Final = 64 * 1024
NEEDS_APPROVAL: Final = frozenset({"desktop.open_path", "desktop.open_url"})
"""Local mediation: what acts on somebody's screen, an operator has agreed to first."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TOO_LARGE: Final = "the node's output exceeds max_payload_bytes"


@dataclass(frozen=True, slots=True)
class CapabilityAsk:
    """What somebody asks of a node. `approved_by` names the operator who asks or agreed."""

    device_id: str
    capability: str
    input_json: bytes = field(repr=False)
    max_payload_bytes: int
    requested_by: str
    approved_by: str | None = None


@dataclass(frozen=True, slots=True)
class CapabilityDispatch:
    """What goes to the node."""

    request_id: str
    capability: str
    input_json: bytes = field(repr=False)
    max_payload_bytes: int


@dataclass(frozen=True, slots=True)
class CapabilityResult:
    """What the node reported."""

    success: bool
    output_json: bytes = field(repr=False)
    error: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CapabilityLimits:
    per_device: int = 64
    in_all: int = 10_000
    timeout_ms: int = TIMEOUT_MS


@dataclass(slots=True)
class _Open:
    """A request under way, with what is never written down."""

    record: CapabilityRequestRecord
    input_json: bytes
    deadline_unix_ms: int


@dataclass(slots=True)
class CapabilityDesk:
    """Every open request. Commands answer with the changed record, or a refusal."""

    limits: CapabilityLimits = field(default_factory=CapabilityLimits)
    _open: dict[str, _Open] = field(default_factory=dict)
    _queues: dict[str, deque[str]] = field(default_factory=dict)
    _per_device: dict[str, int] = field(default_factory=dict)

    def ask(
        self, request_id: str, asked: CapabilityAsk, node: RegisteredNodeRecord | None, now: int
    ) -> CapabilityRequestRecord | CapabilityRefusal:
        """Queue a request, or have it wait for an operator."""
        refused = ask_refusal(asked, node)
        if refused is not None:
            return refused
        held = self._per_device.get(asked.device_id, 0)
        if held >= self.limits.per_device or len(self._open) >= self.limits.in_all:
            return CapabilityRefusal(CapabilityReason.TOO_MANY)
        waits = asked.capability in NEEDS_APPROVAL and asked.approved_by is None
        record = CapabilityRequestRecord(
            request_id=request_id,
            device_id=asked.device_id,
            capability=asked.capability,
            state=CapabilityState.AWAITING_LOCAL_MEDIATION if waits else CapabilityState.QUEUED,
            created_at_unix_ms=now,
            updated_at_unix_ms=now,
            max_payload_bytes=asked.max_payload_bytes or DEFAULT_PAYLOAD_BYTES,
            input_summary=payload_summary(asked.input_json),
            requested_by=asked.requested_by,
            decided_by=asked.approved_by,
        )
        deadline = now + self.limits.timeout_ms
        self._open[request_id] = _Open(record, asked.input_json, deadline)
        self._per_device[asked.device_id] = held + 1
        if not waits:
            self._queues.setdefault(asked.device_id, deque()).append(request_id)
        return record

    def decide(
        self, request_id: str, *, approve: bool, decided_by: str, reason: str, now: int
    ) -> CapabilityRequestRecord | CapabilityRefusal:
        """An operator's word on a request that waits for one. Given once."""
        found = self._open.get(request_id)
        if found is None or not found.record.waits_for_operator:
            return CapabilityRefusal(CapabilityReason.NOT_WAITING)
        if self._is_over(found, now):
            return CapabilityRefusal(CapabilityReason.NOT_WAITING)
        if not approve:
            ended = replace(found.record, decided_by=decided_by)
            return self._end(ended, CapabilityState.REJECTED, now, error=reason or "rejected")
        found.record = replace(
            found.record,
            state=CapabilityState.QUEUED,
            decided_by=decided_by,
            updated_at_unix_ms=now,
        )
        self._queues.setdefault(found.record.device_id, deque()).append(request_id)
        return found.record

    def next_dispatch(
        self, node: RegisteredNodeRecord | None, now: int
    ) -> tuple[CapabilityDispatch, CapabilityRequestRecord] | None:
        """The next request for this node, at most one. What it cannot do now stays queued."""
        if node is None:
            return None
        queue = self._queues.get(node.device_id, deque())
        can = {capability.name for capability in node.capabilities if capability.available}
        for request_id in queue:
            found = self._open[request_id]
            if found.record.capability in can and not self._is_over(found, now):
                self._unqueue(node.device_id, request_id)
                found.record = replace(
                    found.record,
                    state=CapabilityState.DISPATCHED,
                    dispatched_at_unix_ms=now,
                    updated_at_unix_ms=now,
                )
                dispatch = CapabilityDispatch(
                    request_id,
                    found.record.capability,
                    found.input_json,
                    found.record.max_payload_bytes,
                )
                return dispatch, found.record
        return None

    def awaiting_mediation(
        self, device_id: str, request_id: str, now: int
    ) -> CapabilityRequestRecord | CapabilityRefusal:
        """The node says that somebody there must agree."""
        found = self._reportable(device_id, request_id, now)
        if found is None:
            return CapabilityRefusal(CapabilityReason.NOT_THEIRS)
        found.record = replace(
            found.record, state=CapabilityState.AWAITING_LOCAL_MEDIATION, updated_at_unix_ms=now
        )
        return found.record

    def result(
        self, device_id: str, request_id: str, result: CapabilityResult, now: int
    ) -> tuple[CapabilityRequestRecord, CapabilityResult] | CapabilityRefusal:
        """The node's answer; also what the caller is told, which differs if it is too large."""
        found = self._reportable(device_id, request_id, now)
        if found is None:
            return CapabilityRefusal(CapabilityReason.NOT_THEIRS)
        told = result
        if len(result.output_json) > found.record.max_payload_bytes:
            told = CapabilityResult(success=False, output_json=b"", error=_TOO_LARGE)
        state = CapabilityState.SUCCEEDED if told.success else CapabilityState.FAILED
        record = self._end(
            replace(found.record, output_summary=payload_summary(told.output_json)),
            state,
            now,
            error=told.error,
        )
        return record, told

    def expire(self, now: int) -> list[CapabilityRequestRecord]:
        """End what took too long, wherever it stands; a queued one leaves its queue."""
        # all wait equally long, so the one asked first is over first
        over = list(takewhile(lambda found: self._is_over(found, now), self._open.values()))
        return [self._end(found.record, CapabilityState.TIMED_OUT, now) for found in over]

    def give_up(self, request_id: str, now: int) -> CapabilityRequestRecord | None:
        """End one request whose caller has gone; None if it has ended already."""
        found = self._open.get(request_id)
        if found is None:
            return None
        return self._end(found.record, CapabilityState.TIMED_OUT, now)

    def forget_device(self, device_id: str, now: int) -> list[CapabilityRequestRecord]:
        """The device is gone: nothing of it stays open."""
        theirs = [f.record for f in self._open.values() if f.record.device_id == device_id]
        gone = "the device was revoked or removed"
        return [self._end(record, CapabilityState.FAILED, now, error=gone) for record in theirs]

    def input_of(self, request_id: str) -> bytes | None:
        """What an operator judges before agreeing. In memory only, while the request is open."""
        found = self._open.get(request_id)
        return None if found is None else found.input_json

    def has_work(self, device_id: str) -> bool:
        return bool(self._queues.get(device_id))

    def next_deadline_unix_ms(self) -> int | None:
        """When `expire` has something to do next."""
        return next((found.deadline_unix_ms for found in self._open.values()), None)

    def _reportable(self, device_id: str, request_id: str, now: int) -> _Open | None:
        found = self._open.get(request_id)
        if found is None or found.record.device_id != device_id or self._is_over(found, now):
            return None
        return found if found.record.dispatched_at_unix_ms is not None else None

    @staticmethod
    def _is_over(found: _Open, now: int) -> bool:
        return now >= found.deadline_unix_ms

    def _end(
        self, record: CapabilityRequestRecord, state: CapabilityState, now: int, error: str = ""
    ) -> CapabilityRequestRecord:
        del self._open[record.request_id]
        self._unqueue(record.device_id, record.request_id)
        left = self._per_device[record.device_id] - 1
        if left:
            self._per_device[record.device_id] = left
        else:
            del self._per_device[record.device_id]
        return replace(
            record,
            state=state,
            updated_at_unix_ms=now,
            completed_at_unix_ms=now,
            error=text_summary(error),
        )

    def _unqueue(self, device_id: str, request_id: str) -> None:
        queue = self._queues.get(device_id)
        if queue is None or request_id not in queue:
            return
        queue.remove(request_id)
        if not queue:
            del self._queues[device_id]


def ask_refusal(
    asked: CapabilityAsk, node: RegisteredNodeRecord | None
) -> CapabilityRefusal | None:
    """Why this may not be asked of this node now."""
    if _NAME.fullmatch(asked.capability) is None:
        return CapabilityRefusal(CapabilityReason.NAME)
    if asked.max_payload_bytes > MAX_PAYLOAD_BYTES:
        return CapabilityRefusal(CapabilityReason.LIMIT)
    if len(asked.input_json) > (asked.max_payload_bytes or DEFAULT_PAYLOAD_BYTES):
        return CapabilityRefusal(CapabilityReason.INPUT_TOO_LARGE)
    if asked.input_json and not is_json(asked.input_json):
        return CapabilityRefusal(CapabilityReason.INPUT_NOT_JSON)
    if node is None:
        return CapabilityRefusal(CapabilityReason.NOT_REGISTERED)
    offered = {capability.name: capability.available for capability in node.capabilities}
    if not offered.get(asked.capability, False):
        return CapabilityRefusal(CapabilityReason.NOT_AVAILABLE)
    return None


def is_json(payload: bytes) -> bool:
    try:
        strict_json(payload)
    except ValueError:
        return False
    return True


def capabilities_refusal(names: Iterable[str], most: int) -> CapabilityRefusal | None:
    """Why a node may not register with these capabilities."""
    given = list(names)
    if len(given) > most:
        return CapabilityRefusal(CapabilityReason.TOO_MANY_CAPABILITIES)
    if any(_NAME.fullmatch(name) is None for name in given):
        return CapabilityRefusal(CapabilityReason.NAME)
    if len(set(given)) != len(given):
        return CapabilityRefusal(CapabilityReason.NAMED_TWICE)
    return None
