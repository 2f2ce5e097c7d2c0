"""Missing evidence is evidence: which proxies are silent or keep something back. Pure.

A proxy says every few seconds that it is there and how far its spool goes. One that was not heard
for `silence_ms`, or whose spool is ahead of (or behind) what the fleet holds for as long without
the fleet getting on, is in trouble; a proxy that was never heard counts from the fleet's start or
its enrolment. Workers bound to it that hold a lease have their egress suspended at every proxy
until it is heard and its chain is whole: what it saw of them cannot be known. That lives in memory:
after a restart each proxy has its time once more, and everything suspended is suspended again.
Times: Unix ms. Source: specification 20, 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from palyra_fleet.ledger.decision import (
    Decision,
    Detail,
    EnrolledKey,
    EventReason,
    LedgerEvent,
    Notice,
)
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.wire.placement_models import OrderKind

_ACTOR: Final = "fleet"


class ProxyTrouble(StrEnum):
    """What is wrong with a proxy."""

    SILENT = "silent"
    GAPPED = "gapped"


@dataclass(frozen=True, slots=True)
class Heard:
    """The last beat of a proxy. `held_seq` is how far the fleet held its chain then, and
    `stuck_since_unix_ms` since when it got no further although the spool says otherwise."""

    at_unix_ms: int
    spooled_seq: int
    held_seq: int
    stuck_since_unix_ms: int | None


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a worker's egress is suspended."""

    proxy: str
    trouble: ProxyTrouble


@dataclass(slots=True)
class ProxyWatch:
    """What was heard of proxies since this start of the fleet, and whom it cost their egress."""

    silence_ms: int
    began_unix_ms: int
    suspended: dict[str, Suspension] = field(default_factory=dict)
    _heard: dict[str, Heard] = field(default_factory=dict)
    _first_seen: dict[str, int] = field(default_factory=dict)

    def beat(self, proxy: EnrolledKey, spooled_seq: int, now_unix_ms: int) -> None:
        """The proxy is there, and its spool goes that far."""
        before = self._heard.get(proxy.name)
        stuck = None
        if spooled_seq != proxy.seq:
            went_on = before is None or proxy.seq > before.held_seq
            since = None if before is None or went_on else before.stuck_since_unix_ms
            stuck = now_unix_ms if since is None else since
        self._heard[proxy.name] = Heard(now_unix_ms, spooled_seq, proxy.seq, stuck)

    def trouble(self, proxy: EnrolledKey, now_unix_ms: int) -> ProxyTrouble | None:
        heard = self._heard.get(proxy.name)
        first = self._first_seen.setdefault(proxy.name, now_unix_ms)
        last = max(self.began_unix_ms, first) if heard is None else heard.at_unix_ms
        if now_unix_ms - last >= self.silence_ms:
            return ProxyTrouble.SILENT
        if heard is None or heard.stuck_since_unix_ms is None or heard.spooled_seq == proxy.seq:
            return None
        stuck = now_unix_ms - heard.stuck_since_unix_ms >= self.silence_ms
        return ProxyTrouble.GAPPED if stuck else None

    def wanted(self, state: LedgerState, now_unix_ms: int) -> dict[str, Suspension]:
        """Whose egress must be suspended now."""
        troubles = {
            key.name: trouble
            for key in state.enrolled.values()
            if key.kind == "proxy" and not key.revoked
            if (trouble := self.trouble(key, now_unix_ms)) is not None
        }
        if not troubles:
            return {}
        return {
            lease.worker_id: Suspension(name, troubles[name])
            for lease in state.leases.values()
            if (name := state.workers[lease.worker_id].proof.binding_proxy_id) in troubles
        }

    def change(self, wanted: Mapping[str, Suspension], now_unix_ms: int) -> Decision | None:
        """Suspend and resume; what to log and whom to tell, or None. Changes the watch."""
        new = {one: why for one, why in wanted.items() if one not in self.suspended}
        over = {one: why for one, why in self.suspended.items() if one not in wanted}
        self.suspended = dict(wanted)
        if not new and not over:
            return None
        changes = (
            (new, EventReason.EGRESS_SUSPENDED, OrderKind.EGRESS_SUSPENDED),
            (over, EventReason.EGRESS_RESUMED, OrderKind.EGRESS_RESUMED),
        )
        events, notices = [], []
        for workers, reason, order in changes:
            for worker_id, why in workers.items():
                detail: Detail = {"proxy": why.proxy, "why": why.trouble.value}
                events.append(LedgerEvent(reason, _ACTOR, worker_id, None, detail))
                notices.append(Notice(worker_id, order, None, reason.value))
        return Decision(now_unix_ms, events=tuple(events), notices=tuple(notices))

    def alarm(self) -> str | None:
        """For people; names nobody, since health is open to anybody."""
        if not self.suspended:
            return None
        proxies = len({why.proxy for why in self.suspended.values()})
        return (
            f"{proxies} proxies are silent or keep evidence back; the egress of"
            f" {len(self.suspended)} workers is suspended (see `palyra-fleet proxy list`)"
        )
