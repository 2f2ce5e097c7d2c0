"""The certificate our gRPC listeners present: made in memory, renewed while they run.

gRPC asks `configuration` at every handshake. The answer is always a new object, also when nothing
changed, because gRPC then begins with a new TLS context: a ticket of an earlier session opens
nothing, so no session is ever resumed and every handshake checks the whole chain. Open connections
keep what they have. When a renewal is due (two thirds of a certificate's life, or another
authority) is the identity's to know; it is asked every minute.
"""

import asyncio
import logging
from typing import Final, Protocol

from palyra_fleet.identity.authority import ServerIdentity
from palyra_fleet.wire.grpc_runtime import grpc

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
    """What is presented now. `configuration` may be called from any thread."""

    def __init__(self, source: CertificateSource) -> None:
        self._source = source
        self._present = source.server_identity()

    @property
    def certificate_pem(self) -> str:
        return self._present.certificate_pem

    def renew_if_due(self) -> bool:
        """Take what the identity has now; whether that is another one."""
        before, self._present = self._present, self._source.server_identity()
        if before is self._present:
            return False
        _log.info(
            "the node listeners have a new certificate until %d", self._present.expires_at_unix_ms
        )
        return True

    async def keep_fresh(self) -> None:
        """Renew in time, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.renew_if_due()

    def configuration(self, *, with_clients: bool) -> grpc.ServerCertificateConfiguration:
        """For one handshake: our certificate and, on the node listener, the roots of clients."""
        present = self._present
        pair = (present.private_key_pem.encode(), present.certificate_pem.encode())
        roots = self._source.authority.trust_bundle_pem.encode() if with_clients else None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def credentials(self, *, with_clients: bool) -> grpc.ServerCredentials:
        """For one listener. With clients, a certificate of theirs is required; no switch."""

        def configuration() -> grpc.ServerCertificateConfiguration:
            return self.configuration(with_clients=with_clients)

        return grpc.dynamic_ssl_server_credentials(
            configuration(), configuration, require_client_authentication=with_clients
        )
