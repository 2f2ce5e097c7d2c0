"""How much of the proxy one worker, and everybody together, may hold at once.

Beyond a cap a connection or a request is refused, never queued without bound. Caps on what one
message may be stand beside what reads it.
"""

from dataclasses import dataclass
from typing import Final

from palyra_egress.destination.resolver import LOOKUP_LIMITS, LookupLimits


@dataclass(frozen=True, slots=True)
class Caps:
    """Counts. `connections` of workers in all (fewer where the file limit has no room for them) and
    `connections_per_worker` of one; `openings_per_worker` of its tunnels whose TLS handshake is not
    over, and `new_leaves_per_minute` of certificates made for it; `further_upstreams` of servers'
    connections beyond the first of each worker's connection, in all and of one worker; `lookups` of
    names."""

    connections: int = 4096
    connections_per_worker: int = 256
    openings_per_worker: int = 64
    new_leaves_per_minute: int = 300
    further_upstreams: int = 512
    further_upstreams_per_worker: int = 128
    lookups: LookupLimits = LOOKUP_LIMITS


CAPS: Final = Caps()
