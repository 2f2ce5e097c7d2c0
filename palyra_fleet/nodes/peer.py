"""Who is at the other end of a call, as gRPC tells it, and whether that is usable at all.

TLS was done by gRPC, and its word is not enough: the session must be new (a resumed one skips the
check of the chain, also of a certificate that has expired since), TLS 1.3, and encrypted. Whatever
is missing here counts as bad. Pure.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.identity.guess_limits import source_of

MAX_PEM_BYTES: Final = 64 * 1024
_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """`address` is gRPC's spelling (`ipv4:192.0.2.1:4711`); `chain_der` has the leaf first."""

    address: str
    chain_der: tuple[bytes, ...] = field(repr=False)
    session_is_sound: bool

    @property
    def host(self) -> str:
        """What limits are counted by: the address without its port, of IPv6 the /64."""
        return source_of(self.address)


def peer_of(address: str, auth_context: Mapping[str, Iterable[bytes]]) -> Peer:
    """The peer of a call."""
    one = {name: b"".join(values) for name, values in auth_context.items()}
    sound = (
        one.get("ssl_session_reused") == b"false"
        and one.get("ssl_tls_version") == b"TLSv1.3"
        and one.get("security_level") == b"TSI_PRIVACY_AND_INTEGRITY"
    )
    chain = one.get("x509_pem_cert_chain") or one.get("x509_pem_cert", b"")
    return Peer(address, certificates_of(chain), sound)


def certificates_of(pem: bytes) -> tuple[bytes, ...]:
    """The DER of every certificate in a PEM text; none at all if any part of it is not one."""
    if len(pem) > MAX_PEM_BYTES:
        return ()
    try:
        return tuple(
            base64.b64decode(b"".join(found[1].split()), validate=True)
            for found in _PEM.finditer(pem)
        )
    except binascii.Error:
        return ()
