"""How the console says things: times, states, reasons and lengths in plain words. Pure.

A tone is one of `good`, `calm`, `warn`, `bad`: what a colour says is always said by a word as well.
"""

from collections.abc import Mapping
from typing import Final

from palyra_fleet.wire.moments import date_of

TONES: Final[Mapping[str, str]] = {
    "available": "good",
    "assigned": "good",
    "busy": "good",
    "registered": "calm",
    "draining": "calm",
    "offline": "warn",
    "orphaned": "warn",
    "failed": "bad",
    "quarantined": "bad",
    "banned": "bad",
    "paired": "good",
    "rotating": "warn",
    "lapsed": "warn",
    "pending_approval": "warn",
    "approved": "good",
    "completed": "good",
    "rejected": "bad",
    "expired": "calm",
    "revoked": "warn",
    "cleanup_failed": "bad",
    "struck": "warn",
    "already_quarantined": "bad",
    "recorded": "calm",
    "ok": "good",
    "not_frozen": "good",
    "leases_frozen": "warn",
    "egress_frozen": "bad",
}
"""By state of a worker, lease, device or pairing request, by outcome of evidence, by health."""

EVENT_TONES: Final[Mapping[str, str]] = {
    "worker.quarantined_by_egress": "bad",
    "worker.quarantined_by_operator": "bad",
    "worker.banned_by_operator": "bad",
    "worker.cleanup_failed": "bad",
    "worker.struck_by_egress": "warn",
    "worker.heartbeat_stale": "warn",
    "worker.offer_declined": "warn",
    "worker.offer_lapsed": "warn",
    "worker.ttl_expired": "warn",
    "worker.lease_revoked": "warn",
    "worker.reattestation_demanded": "warn",
    "worker.released_by_operator": "good",
    "worker.release_requested": "warn",
    "worker.release_approved": "good",
    "worker.release_request_voided": "warn",
    "worker.completed": "good",
    "worker.registered": "good",
    "fleet.leases_frozen": "bad",
    "fleet.egress_frozen": "bad",
    "fleet.egress_unfrozen": "warn",
    "fleet.leases_unfrozen": "good",
}


def tone_of(state: str) -> str:
    return TONES.get(state, "calm")


def tone_of_event(reason: str) -> str:
    return EVENT_TONES.get(reason, "calm")


def iso(unix_ms: int) -> str:
    """RFC 3339 in UTC, to the second."""
    return date_of(unix_ms).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock_time(unix_ms: int) -> str:
    """For people: date and time in UTC."""
    return date_of(unix_ms).strftime("%Y-%m-%d %H:%M:%S")


def state_word(state: str) -> str:
    return state.replace("_", " ")


def event_word(reason: str) -> str:
    """`worker.quarantined_by_egress` is "quarantined by egress"; others keep their first word."""
    return reason.removeprefix("worker.").replace(".", " ").replace("_", " ")


def duration(milliseconds: int) -> str:
    """A length of time, rounded to what matters."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds / 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def size(count: int) -> str:
    """A number of bytes, in the unit that fits (powers of 1000)."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def short(identifier: str) -> str:
    """The part of an id or a digest that a person compares first."""
    return identifier if len(identifier) <= 14 else f"{identifier[:6]}…{identifier[-6:]}"
