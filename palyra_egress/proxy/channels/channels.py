"""All channels of one proxy: opened together, following the view, closed together."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from palyra_egress.clock import now_utc
from palyra_egress.proxy.bindings import BindingView
from palyra_egress.proxy.channels.carry import Carry, TurnedAway
from palyra_egress.proxy.channels.listener_certificate import ListenerCertificate
from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_sockets import LeaseListeners, PeerSocket
from palyra_egress.proxy.channels.worker_tls import WorkerTlsListener
from palyra_egress.proxy.tls.interception import InterceptionAuthority

FOLLOW_EVERY_S: Final = 0.05


class Channels:
    """What listens beside the plain listener. `addresses` are TCP addresses, never a target."""

    def __init__(
        self,
        settings: ChannelSettings,
        authority: InterceptionAuthority,
        carry: Carry,
        carry_redirected: Carry,
        turned_away: TurnedAway,
        handshake_within_s: float,
        now: Callable[[], datetime] = now_utc,
    ) -> None:
        tls = settings.worker_tls
        self.worker_tls: WorkerTlsListener | None = None
        if tls is not None:
            certificate = ListenerCertificate(authority, (tls.host, *tls.names), now)
            self.worker_tls = WorkerTlsListener(
                tls, carry, turned_away, certificate.current, handshake_within_s
            )
        peers, leases = settings.peer_socket, settings.lease_listeners
        self.peer_socket = None if peers is None else PeerSocket(peers, carry, turned_away)
        self.lease_listeners: LeaseListeners | None = None
        if leases is not None:
            self.lease_listeners = LeaseListeners(leases, carry, carry_redirected)
        self.addresses: set[tuple[str, int]] = (
            set(leases.listening) if leases is not None else set()
        )
        self.worker_tls_address: tuple[str, int] | None = None
        self.followed = asyncio.Event()

    async def open(self) -> None:
        """Raises OSError or OperatorMustAct; `close` is safe then, too."""
        if self.lease_listeners is not None:
            self.lease_listeners.check()
        if self.peer_socket is not None:
            await self.peer_socket.open()
        if self.worker_tls is not None:
            host = self.worker_tls.settings.host
            port = await self.worker_tls.open(host, self.worker_tls.settings.port)
            self.worker_tls_address = (host, port)
            self.addresses.add(self.worker_tls_address)

    async def follow(self, view: BindingView) -> None:
        """For ever: a listener for each live lease, and for no other."""
        if self.lease_listeners is None:
            return
        followed = -1
        while True:
            if view.version != followed or self.lease_listeners.problem is not None:
                followed = view.version
                await self.lease_listeners.follow(view.live_leases())
                self.followed.set()
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def close(self) -> None:
        """Take no new connections; running ones go on until they are cut."""
        if self.worker_tls is not None:
            await self.worker_tls.stop_listening()
        if self.peer_socket is not None:
            await self.peer_socket.close()
        if self.lease_listeners is not None:
            await self.lease_listeners.close()

    @property
    def problem(self) -> str | None:
        """What is wrong with a listener, or None."""
        listeners = (self.worker_tls, self.lease_listeners)
        return next((one.problem for one in listeners if one is not None and one.problem), None)
