"""A real IdentityManager and PairingService over a store in memory, and a clock tests move."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from palyra_fleet.identity.manager import IdentityManager, IdentitySettings
from palyra_fleet.identity.messages import (
    BeginPairing,
    PairedDevice,
    PairingStatus,
    RevocationNotice,
    VerifiedLeaf,
)
from palyra_fleet.identity.pairing import PairingSettings
from palyra_fleet.identity.pairing_service import PairingService
from palyra_fleet.identity.records import (
    CodeMethod,
    DevicePairingCodeRecord,
    DevicePairingRequestRecord,
    PairingChange,
    PairingSnapshot,
)
from palyra_fleet.identity.refusals import NodeRefusal
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.wire.sealing import MasterKey
from tests.fakes.fleet_world import Clock
from tests.fakes.pairing_device import PairingDevice

MASTER = MasterKey.of(bytes(range(32)))
HERE = "ipv4:192.0.2.1:4711"
QUIET = 3_600_000
"""No reaper: tests settle when they mean to."""


@dataclass(slots=True)
class MemoryPairingStore:
    """A PairingStore whose content outlives the service; `fail` makes the next commit fail."""

    codes: dict[str, DevicePairingCodeRecord] = field(default_factory=dict)
    requests: dict[str, DevicePairingRequestRecord] = field(default_factory=dict)
    fail: bool = False
    commits: int = 0

    def pairing_snapshot(self) -> PairingSnapshot:
        return PairingSnapshot(tuple(self.codes.values()), tuple(self.requests.values()))

    async def commit_pairing(self, change: PairingChange) -> None:
        if self.fail:
            raise StoreFailed("the disk is full", ambiguous=False)
        self.commits += 1
        self.codes |= {code.code_hash: code for code in change.put_codes}
        self.requests |= {request.request_id: request for request in change.put_requests}
        for code_hash in change.remove_codes:
            self.codes.pop(code_hash, None)
        for request_id in change.remove_requests:
            self.requests.pop(request_id, None)


@dataclass(slots=True)
class IdentityWorld:
    """One fleet's identity, and hands that pair devices with it."""

    identity: IdentityManager
    pairing: PairingService
    store: MemoryPairingStore
    clock: Clock
    notices: list[RevocationNotice] = field(default_factory=list)

    async def begin_and_complete(
        self, device: PairingDevice, method: CodeMethod = CodeMethod.PIN
    ) -> tuple[str, str]:
        """A session and its approval id."""
        minted = await self.pairing.mint_code(method, "operator")
        begun = await self.pairing.begin(asking(device.client_kind, method, minted.code), HERE)
        done = await self.pairing.complete(device.completion(begun, minted.code), HERE)
        return begun.session_id, done.approval_id

    async def pair(self, device: PairingDevice, *, replace: bool = False) -> PairingStatus:
        session_id, approval_id = await self.begin_and_complete(device)
        await self.pairing.decide(
            approval_id, approve=True, decided_by="operator", replace_identity=replace
        )
        return await self.pairing.status(device.poll(session_id))

    def leaf(self, certificate_pem: str) -> VerifiedLeaf:
        """The certificate as a listener would verify it."""
        found = self.identity.verify([der(certificate_pem)])
        assert isinstance(found, VerifiedLeaf), found
        return found

    async def admit(
        self, certificate_pem: str, claimed: str | None = None
    ) -> PairedDevice | NodeRefusal:
        found = self.identity.verify([der(certificate_pem)])
        if isinstance(found, NodeRefusal):
            return found
        return await self.identity.admit(found, claimed)


def asking(client_kind: str, method: CodeMethod, code: str) -> BeginPairing:
    if method is CodeMethod.PIN:
        return BeginPairing(client_kind, pin_code=code)
    return BeginPairing(client_kind, qr_token=code)


def der(certificate_pem: str) -> bytes:
    return x509.load_pem_x509_certificate(certificate_pem.encode()).public_bytes(Encoding.DER)


@asynccontextmanager
async def identity_world(
    state_dir: Path,
    *,
    store: MemoryPairingStore | None = None,
    clock: Clock | None = None,
    identity: IdentitySettings | None = None,
    pairing: PairingSettings | None = None,
    master: MasterKey = MASTER,
) -> AsyncIterator[IdentityWorld]:
    clock = clock or Clock()
    store = store if store is not None else MemoryPairingStore()
    settings = identity or IdentitySettings(reap_every_ms=QUIET)
    manager = await IdentityManager.start(state_dir, master, settings, clock)
    try:
        world = IdentityWorld(manager, PairingService(manager, store, pairing), store, clock)
        manager.subscribe(world.notices.append)
        yield world
    finally:
        await manager.close()
