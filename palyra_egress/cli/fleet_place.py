"""Where a proxy finds its fleet, and as whom: a socket of this machine, or a pairing of this one.

With a fleet elsewhere the proxy's key is the one the machine paired with, and its name is, unless
another is given, the device's; it takes its place in the fleet by itself.
"""

import ipaddress
from argparse import Namespace
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from palyra_fleet.cli.remote_place import paired_device
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import FleetAddress
from palyra_fleet.client.device import DeviceClient
from palyra_fleet.wire.keys import SigningKey


@dataclass(frozen=True, slots=True)
class FleetPlace:
    """See `ProxySettings`."""

    fleet: FleetAddress
    proxy_id: str
    key: SigningKey | None = None
    join: Callable[[], Awaitable[None]] | None = None
    keep: Callable[[], Coroutine[object, object, None]] | None = None
    forbidden: frozenset[tuple[str, int]] = frozenset()


def place_of(arguments: Namespace) -> FleetPlace:
    """Raises Trouble, NotPaired or MaterialUnusable."""
    if arguments.fleet is None:
        if arguments.name is None:
            raise Trouble(
                ExitCode.YOURS,
                "this proxy has no name",
                "a fleet on this machine knows it by the name it was enrolled under",
                "pass --name NAME, as in `palyra-fleet proxy enrol NAME KEY`",
            )
        return FleetPlace(arguments.fleet_socket, arguments.name)
    device = paired_device(arguments.device or arguments.state_dir / "device", "proxy")
    fleet, key = device.keeper.fleet(device.url(arguments.fleet)), device.keeper.signing_key
    name = arguments.name or f"proxy-{device.device_id.lower()}"

    async def join() -> None:
        async with DeviceClient(fleet) as client:
            await client.enrol_proxy(name, key.public_key)

    return FleetPlace(
        fleet, name, key, join, lambda: device.keeper.keep(fleet.url), _literal(fleet.url)
    )


def _literal(url: str) -> frozenset[tuple[str, int]]:
    """The fleet's own listener, if it is given by address: no rule may reach it."""
    parts = urlsplit(url)
    with suppress(ValueError):
        return frozenset({(str(ipaddress.ip_address(parts.hostname or "")), parts.port or 443)})
    return frozenset()
