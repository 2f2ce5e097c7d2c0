"""Which channels a proxy has beside its plain listener."""

from dataclasses import dataclass
from typing import Final

from palyra_egress.proxy.channels.worker_sockets import LeaseListenerSettings, PeerSocketSettings
from palyra_egress.proxy.channels.worker_tls import WorkerTlsSettings


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """None means that there is no such listener."""

    worker_tls: WorkerTlsSettings | None = None
    peer_socket: PeerSocketSettings | None = None
    lease_listeners: LeaseListenerSettings | None = None


NO_CHANNELS: Final = ChannelSettings()
