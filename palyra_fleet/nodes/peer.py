"""Who is at the other end of a call: the address, and the certificates it came with. Pure."""

from dataclasses import dataclass, field

from palyra_fleet.identity.guess_limits import source_of


@dataclass(frozen=True, slots=True)
class Peer:
    """`address` is gRPC's spelling (`ipv4:192.0.2.1:4711`); `chain_der` has the leaf first.

    `session_is_sound` is False for whatever did not come through our own TLS, in a new session.
    """

    address: str
    chain_der: tuple[bytes, ...] = field(repr=False)
    session_is_sound: bool

    @property
    def host(self) -> str:
        """What limits are counted by: the address without its port, of IPv6 the /64."""
        return source_of(self.address)
