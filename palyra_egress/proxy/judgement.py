"""What the core releases about a request, and the lanes act on. A value, and nothing else.

Not allowed unless it says so: nothing allows by being forgotten.
"""

from dataclasses import dataclass

from palyra_egress.credentials.binding import CredentialBinding
from palyra_egress.credentials.injection import Injected
from palyra_egress.proxy.signals.request_trace import RequestTrace
from palyra_egress.proxy.tls.server_tls import ServerTls
from palyra_egress.reasons import Reason
from palyra_egress.verdict import (
    INSPECTED,
    NO_LIMITS,
    Account,
    Carriage,
    Limits,
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A released decision. `addresses` is the whole answer that was judged, `pinned` what may be
    dialled, `accounts` what its bytes are counted against for `worker_id`, `credentials` what the
    rule binds and `injected` what of it leaves, `server_tls` how its server is met. `close` says
    that the connection must end after the answer; `trace` is what is told of it."""

    reason: Reason
    decision_id: str
    allowed: bool = False
    pinned: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    worker_id: str = ""
    accounts: tuple[Account, ...] = ()
    close: bool = False
    credentials: tuple[CredentialBinding, ...] = ()
    injected: tuple[Injected, ...] = ()
    carriage: Carriage = INSPECTED
    server_tls: ServerTls | None = None
    trace: RequestTrace | None = None
