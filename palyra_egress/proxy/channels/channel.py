"""What a connection shows about who is at its other end, beside any credential it may send. Pure.

A channel names one worker: by the certificate of mutual TLS, by the account and process behind a
Unix socket, or because nobody else was given the listener. It is no right to speak: a lease of
exactly that worker must be live, and the channel must still hold, at every request. Credentials
that are sent all the same must be of that worker and lease. Times: Unix milliseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from palyra_egress.reasons import Reason


class ChannelKind(StrEnum):
    """How a channel knows its worker."""

    CERTIFICATE = "certificate"
    PEER = "peer"
    LISTENER = "listener"


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Channel:
    """One connection's channel. `lease_id` where it was made for one lease only; `certificate` is
    the fingerprint that the fleet must have bound to the lease, good until `good_until_unix_ms`;
    `is_unchanged` says whether the other end is still who it was."""

    kind: ChannelKind
    worker_id: str
    lease_id: str | None = None
    certificate: str | None = None
    good_until_unix_ms: int | None = None
    is_unchanged: Callable[[], bool] = _always

    def refusal(self, now_unix_ms: int) -> Reason | None:
        """Why the channel does not hold any more, or None."""
        if self.good_until_unix_ms is not None and now_unix_ms >= self.good_until_unix_ms:
            return Reason.CERTIFICATE_NOT_BOUND
        return None if self.is_unchanged() else Reason.IDENTITY_CHANGED
