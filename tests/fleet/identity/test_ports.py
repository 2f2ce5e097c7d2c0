"""The services have the shapes their users take; the type checker compares, this names it."""

from palyra_fleet.identity.manager import IdentityManager
from palyra_fleet.identity.pairing_service import PairingService
from palyra_fleet.identity.ports import NodeIdentity, Pairing
from tests.fakes.identity_world import IdentityWorld


def _shapes(manager: IdentityManager, service: PairingService) -> tuple[NodeIdentity, Pairing]:
    return manager, service


async def test_the_services_have_the_shapes_of_the_ports(world: IdentityWorld) -> None:
    shaped = _shapes(world.identity, world.pairing)
    for port, service in zip((NodeIdentity, Pairing), shaped, strict=True):
        names = [name for name in vars(port) if not name.startswith("_")]
        assert names
        assert all(callable(getattr(service, name)) for name in names)
