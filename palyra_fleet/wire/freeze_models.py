"""What an operator says to the kill switch, and is told of it. Times: Unix ms."""

from palyra_fleet.wire.models import ShortText, UnixMs, WireModel


class FreezeRequest(WireModel):
    """Freezes new leases and, with `egress`, all that passes the proxies."""

    reason: ShortText
    egress: bool = False


class UnfreezeRequest(WireModel):
    """Ends a freeze; with `egress_only` new leases stay frozen."""

    reason: ShortText
    egress_only: bool = False


class FreezeView(WireModel):
    """What is frozen now, since when and by whom; `by` is None where a storm froze new leases."""

    leases: bool
    egress: bool
    by: str | None = None
    since_unix_ms: UnixMs | None = None
