"""The certificate our TLS listeners present: made in memory, renewed while they run.

A TLS context is made once for each certificate and set of roots, and used by every handshake until
there is another. It speaks TLS 1.3 only and gives no tickets, so no session is ever resumed and
every handshake checks the whole chain. The key goes to OpenSSL through a file that lives in memory.
When a renewal is due (two thirds of a certificate's life, or another authority) is the identity's
to know; it is asked every minute.
"""

import asyncio
import logging
import os
import ssl
from dataclasses import dataclass
from typing import Final, Protocol

from palyra_fleet.identity.authority import ServerIdentity

LOOK_EVERY_S: Final = 60.0

_log = logging.getLogger(__name__)


class TrustBundle(Protocol):
    """Never changes; another one takes its place."""

    @property
    def trust_bundle_pem(self) -> str:
        """The roots that client certificates must chain to."""


class CertificateSource(Protocol):
    """What the fleet's identity gives a listener."""

    @property
    def authority(self) -> TrustBundle: ...

    def server_identity(self) -> ServerIdentity:
        """What to present now: a new one when due. Asked on the event loop only."""


class ServerCertificate:
    """What is presented now. Of the event loop's thread."""

    def __init__(self, source: CertificateSource, alpn: str = "h2") -> None:
        self._source = source
        self._alpn = alpn
        self._present = source.server_identity()
        self._contexts: dict[bool, _Made] = {}

    @property
    def certificate_pem(self) -> str:
        return self._present.certificate_pem

    def renew_if_due(self) -> bool:
        """Take what the identity has now; whether that is another one."""
        before, self._present = self._present, self._source.server_identity()
        if before is self._present:
            return False
        _log.info("a listener has a new certificate until %d", self._present.expires_at_unix_ms)
        return True

    async def keep_fresh(self) -> None:
        """Renew in time, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.renew_if_due()

    def context(self, *, with_clients: bool) -> ssl.SSLContext:
        """For one handshake: our certificate and, on the node listener, the roots of clients. With
        clients, a certificate of theirs is required; no switch."""
        self.renew_if_due()  # at once when another authority signs servers
        present = self._present
        roots = self._source.authority.trust_bundle_pem if with_clients else ""
        made = self._contexts.get(with_clients)
        if made is None or made.identity is not present or made.roots_pem != roots:
            made = _Made(present, roots, make_context(present, roots or None, self._alpn))
            self._contexts[with_clients] = made
        return made.context


@dataclass(frozen=True, slots=True)
class _Made:
    """A context, and what it was made from."""

    identity: ServerIdentity
    roots_pem: str
    context: ssl.SSLContext


def make_context(
    identity: ServerIdentity, client_roots_pem: str | None, alpn: str = "h2"
) -> ssl.SSLContext:
    """TLS 1.3, no tickets, one protocol; with roots, a certificate under them is required."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols([alpn])
    descriptor = os.memfd_create("palyra-server-certificate")
    try:
        os.write(descriptor, (identity.certificate_pem + identity.private_key_pem).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    if client_roots_pem is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_roots_pem)
    return context
