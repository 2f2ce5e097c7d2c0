"""Everything that one proxy listens on, opened together and closed together.

The doors of workers (HTTP, SOCKS5), the channels that know their worker, and what tells about the
proxy itself. None of their addresses is ever a target. The doors close first; what tells stays
until everything has ended.
"""

from dataclasses import dataclass, field

from mitmproxy.master import Master

from palyra_egress.proxy.channels.carry import TurnedAway
from palyra_egress.proxy.channels.channels import Channels
from palyra_egress.proxy.handler import GuardFactory
from palyra_egress.proxy.master import Door, EgressListener
from palyra_egress.proxy.settings import ProxySettings
from palyra_egress.proxy.signals.admin_socket import AdminListeners, Told
from palyra_egress.proxy.tls.interception import InterceptionAuthority

type Address = tuple[str, int]


@dataclass(slots=True)
class Listeners:
    """`open` raises OSError or OperatorMustAct; `close_doors` and `close` are safe then, too."""

    settings: ProxySettings
    master: Master
    make_guard: GuardFactory
    authority: InterceptionAuthority
    told: Told
    turned_away: TurnedAway
    doors: dict[Door, EgressListener] = field(default_factory=dict)
    addresses: dict[Door, tuple[Address, ...]] = field(default_factory=dict)
    channels: Channels = field(init=False)
    admin: AdminListeners = field(init=False)
    health_address: Address | None = None

    def __post_init__(self) -> None:
        settings = self.settings
        self.doors = {
            door: EgressListener(self.master, self.make_guard, door) for door in _places(settings)
        }
        handshake_s = settings.deadlines.handshake_s
        carry = self.doors[Door.HTTP].carry
        redirected = EgressListener(self.master, self.make_guard, Door.TRANSPARENT).carry
        self.channels = Channels(
            settings.channels, self.authority, carry, redirected, self.turned_away, handshake_s
        )
        self.admin = AdminListeners(self.told, settings.admin_socket, settings.health_address)

    async def open(self) -> None:
        for door, where in _places(self.settings).items():
            self.addresses[door] = await self.doors[door].open(*where)
        await self.channels.open()
        self.health_address = await self.admin.open()

    async def close_doors(self) -> None:
        """Take no new connections; running ones go on."""
        for listener in self.doors.values():
            await listener.close()
        await self.channels.close()

    async def close(self) -> None:
        await self.close_doors()
        await self.admin.close()

    @property
    def all_addresses(self) -> frozenset[Address]:
        """Where this proxy listens over TCP, whatever is spoken there."""
        at_doors = {address for found in self.addresses.values() for address in found}
        health = {self.health_address} if self.health_address is not None else set()
        return frozenset(at_doors | self.channels.addresses | health)


def _places(settings: ProxySettings) -> dict[Door, Address]:
    places = {Door.HTTP: (settings.listen_host, settings.listen_port)}
    if settings.listen_socks is not None:
        places[Door.SOCKS] = settings.listen_socks
    return places
