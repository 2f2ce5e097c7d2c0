"""The two faces that listeners and admin routes use. Refusals are raised as `NodeRefused`.

`PairingService` and `IdentityManager` have these shapes; whoever serves nodes takes the protocols.
Every change is durable before the call returns. Times: Unix ms.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from palyra_fleet.identity.authority import AuthorityStanding, ServerIdentity
from palyra_fleet.identity.device_records import CertificateRecord, DeviceRecord
from palyra_fleet.identity.known_certificates import KnownCertificate
from palyra_fleet.identity.messages import (
    AskPairingStatus,
    BeginPairing,
    BegunPairing,
    CompletedPairing,
    CompletePairing,
    IssuedCertificate,
    MintedCode,
    PairedDevice,
    PairingStatus,
    Replay,
    RevocationNotice,
    VerifiedLeaf,
)
from palyra_fleet.identity.records import (
    ClientKind,
    CodeMethod,
    DevicePairingCodeRecord,
    DevicePairingRequestRecord,
)
from palyra_fleet.identity.refusals import NodeRefusal


class Pairing(Protocol):
    """Pairing, for the enrolment listener and for operators.

    `source` is the peer's address as the transport names it (`ipv4:192.0.2.1:4711`).
    """

    async def begin(self, asked: BeginPairing, source: str) -> BegunPairing: ...

    async def complete(self, asked: CompletePairing, source: str) -> CompletedPairing: ...

    async def status(self, asked: AskPairingStatus) -> PairingStatus: ...

    async def mint_code(
        self, method: CodeMethod, issued_by: str, ttl_ms: int | None = None
    ) -> MintedCode: ...

    async def withdraw_code(self, code_hash: str, actor: str) -> None: ...

    async def decide(
        self,
        approval_id: str,
        *,
        approve: bool,
        decided_by: str,
        reason: str = "",
        replace_identity: bool = False,
    ) -> DevicePairingRequestRecord: ...

    def codes(self) -> tuple[DevicePairingCodeRecord, ...]: ...

    def requests(self) -> tuple[DevicePairingRequestRecord, ...]: ...

    async def sweep(self) -> None: ...


class NodeIdentity(Protocol):
    """Who a certificate belongs to, and whether it is still good.

    A listener calls `verify` once per connection, on the chain the peer presented (leaf first),
    and `admit` for every RPC and every message of a stream. `admit` is a dictionary look-up but
    for the first use of a rotated certificate, which it makes durable. `check` is the look-up
    alone. `subscribe` tells of every revocation; the returned function ends the subscription.
    """

    def verify(
        self, chain_der: Sequence[bytes], now_unix_ms: int | None = None
    ) -> VerifiedLeaf | NodeRefusal: ...

    async def admit(
        self, leaf: VerifiedLeaf, claimed_device_id: str | None
    ) -> PairedDevice | NodeRefusal: ...

    def check(self, fingerprint: str, now_unix_ms: int) -> PairedDevice | NodeRefusal: ...

    def device(self, device_id: str) -> DeviceRecord | None: ...

    def devices(self, kind: ClientKind | None = None) -> tuple[DeviceRecord, ...]: ...

    def history(self, device_id: str) -> tuple[CertificateRecord, ...]: ...

    def replay(self, scope: str, replay: Replay) -> NodeRefusal | None: ...

    async def rotate(self, caller: PairedDevice, csr_pem: str) -> IssuedCertificate: ...

    async def demand_rotation(
        self, device_id: str, within_ms: int, reason: str, actor: str
    ) -> DeviceRecord: ...

    async def revoke_device(self, device_id: str, reason: str, actor: str) -> None: ...

    async def revoke_fingerprint(self, fingerprint: str, reason: str, actor: str) -> None: ...

    async def remove_device(self, device_id: str, reason: str, actor: str) -> None: ...

    async def rotate_authority(self, reason: str, actor: str) -> str: ...

    def authorities(self) -> tuple[AuthorityStanding, ...]: ...

    def certificates(self) -> Iterator[KnownCertificate]: ...

    def server_identity(self) -> ServerIdentity: ...

    def subscribe(self, listener: Callable[[RevocationNotice], None]) -> Callable[[], None]: ...
