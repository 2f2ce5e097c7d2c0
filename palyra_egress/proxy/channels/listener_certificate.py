"""The certificate that the proxy's own TLS listener shows: signed like the leaves that workers see.

Workers trust the proxy's root already, so nothing has to be brought to them. The key is new for
each certificate and stays in memory; half-way through its life, and when the root is another, there
is a new one. Addresses that name nobody (0.0.0.0, ::) are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from palyra_egress.proxy.tls.interception import LEAF_LIFE, InterceptionAuthority
from palyra_egress.request import CanonicalHost


@dataclass(frozen=True, slots=True)
class Shown:
    """Key, leaf and intermediate in PEM. Another certificate is another object."""

    pem: bytes = field(repr=False)
    issuer: bytes
    renew_at: datetime


class ListenerCertificate:
    """`current` answers with what to show now."""

    def __init__(
        self,
        authority: InterceptionAuthority,
        names: Sequence[str],
        now: Callable[[], datetime],
    ) -> None:
        self._authority = authority
        self._names = tuple(
            CanonicalHost(name.lower()) for name in dict.fromkeys(names) if not _is_nobody(name)
        )
        self._now = now
        self._shown: Shown | None = None

    def current(self) -> Shown:
        """A new one when it is due, else the same object as before."""
        now, root = self._now(), self._authority.root_fingerprint
        held = self._shown
        if held is not None and held.issuer == root and now < held.renew_at:
            return held
        key = ec.generate_private_key(ec.SECP256R1())
        chain = self._authority.issue(self._names, key.public_key(), now)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        for certificate in chain:
            pem += certificate.public_bytes(serialization.Encoding.PEM)
        self._shown = Shown(pem, root, now + LEAF_LIFE / 2)
        return self._shown


def _is_nobody(name: str) -> bool:
    try:
        return ip_address(name).is_unspecified
    except ValueError:
        return name == ""
