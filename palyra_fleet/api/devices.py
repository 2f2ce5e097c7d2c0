"""Paired machines at the API: which one a request came from, and what it may ask for itself.

`DeviceGate` asks the identity for every request; nothing is remembered but that a certificate was
seen to be well formed. A machine renews its own certificate here. Refusals are NodeRefused.
"""

from collections.abc import Callable

from palyra_fleet.identity.messages import IssuedCertificate, PairedDevice
from palyra_fleet.identity.ports import NodeIdentity
from palyra_fleet.nodes.gate import Gate
from palyra_fleet.nodes.peer import Peer


class DeviceGate:
    """Over the fleet's identity."""

    def __init__(self, identity: NodeIdentity, clock: Callable[[], int]) -> None:
        self._identity = identity
        self._clock = clock
        self._gate = Gate(identity, clock)

    async def device(self, peer: Peer) -> PairedDevice:
        """The paired device behind a connection. Raises NodeRefused."""
        return await self._gate.admit(self._gate.leaf(peer), None)

    def still(self, peer: Peer) -> None:
        """Is it still good, now that the body is here? Raises NodeRefused."""
        self._gate.check(self._gate.leaf(peer))

    def renewal_due(self, device: PairedDevice) -> bool:
        """Should it ask for its next certificate now?"""
        return self._clock() >= device.rotate_from_unix_ms

    async def rotate(self, device: PairedDevice, csr_pem: str) -> IssuedCertificate:
        """The device's next certificate."""
        return await self._identity.rotate(device, csr_pem)
