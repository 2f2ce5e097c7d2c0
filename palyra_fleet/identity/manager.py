"""IdentityManager: who may speak with which certificate, and every command that changes it.

`start` opens identity's own database in the state directory (after the fleet's, where there is
one: the published authority says that both must exist). A state that is lost, damaged or sealed
under another master key refuses to start. Every change is durable before the call returns, and
whoever is subscribed hears of a revocation before that. A revocation that cannot be written is
refused, and its device is suspended in memory all the same.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from palyra_fleet.identity import known_certificates
from palyra_fleet.identity.authority import (
    AuthorityStanding,
    FleetCertificateAuthority,
    IssuedLeaf,
    ServerIdentity,
    make_authority,
)
from palyra_fleet.identity.certificate_profiles import unix_ms
from palyra_fleet.identity.client_certificate import (
    CertificateFlaw,
    fingerprint_of,
    verify_client_certificate,
)
from palyra_fleet.identity.device_ledger import Outcome
from palyra_fleet.identity.device_records import (
    CertificateRecord,
    CertificateState,
    DeviceRecord,
    IdentityDecision,
    IdentityEvent,
    IdentityEventReason,
    RotationDemand,
)
from palyra_fleet.identity.identity_core import IdentityCore, IdentitySettings
from palyra_fleet.identity.identity_store import IdentityStore
from palyra_fleet.identity.known_certificates import KnownCertificate
from palyra_fleet.identity.messages import IssuedCertificate, PairedDevice, Replay, VerifiedLeaf
from palyra_fleet.identity.pairing_input import csr_refusal
from palyra_fleet.identity.records import ClientKind, VerifiedPairing
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused, refuse

__all__ = ["IdentityManager", "IdentitySettings"]
MAX_FORGOTTEN_NOTED: Final = 64
_log = logging.getLogger(__name__)


class IdentityManager(IdentityCore):
    """Made by `start`."""

    @property
    def authority(self) -> FleetCertificateAuthority:
        return self._authority

    @property
    def pairing_pepper(self) -> bytes:
        """Keys the hashes of pairing codes. A secret."""
        return self._pepper

    @property
    def store(self) -> IdentityStore:
        """For reading its event log."""
        return self._store

    def verify(
        self, chain_der: Sequence[bytes], now_unix_ms: int | None = None
    ) -> VerifiedLeaf | NodeRefusal:
        """What a peer presented, leaf first: a device's certificate, or the gate's first row."""
        now = self.now() if now_unix_ms is None else now_unix_ms
        found = verify_client_certificate(
            chain_der, self._authority.trusted, self.settings.trust_domain, now
        )
        if isinstance(found, CertificateFlaw):
            _log.info("a client certificate was refused: %s", found.value)
            return refuse(NodeReason.GATE_NO_CERTIFICATE)
        return found

    def check(self, fingerprint: str, now_unix_ms: int) -> PairedDevice | NodeRefusal:
        """Who may speak with this certificate at this time. Looks, and changes nothing."""
        if self._unusable:
            return refuse(NodeReason.STORE_UNAVAILABLE)
        found = self._ledger.check(fingerprint, max(now_unix_ms, self._high_water))
        if isinstance(found, PairedDevice) and found.device_id in self._suspended:
            return refuse(NodeReason.GATE_REVOKED)
        return found

    async def admit(
        self, leaf: VerifiedLeaf, claimed_device_id: str | None
    ) -> PairedDevice | NodeRefusal:
        """The gate of every RPC and every message; see the table in `refusals`."""
        now = self.now()
        found = self.check(leaf.fingerprint, now)
        certificate = self._ledger.certificates.get(leaf.fingerprint)
        if isinstance(found, NodeRefusal):
            with contextlib.suppress(NodeRefused):  # refused either way
                if certificate is None:
                    await self._note_forgotten(leaf)
                elif self._unwritten_end(certificate, now):
                    await self.settle()
            return found
        in_time = leaf.not_before_unix_ms <= now < leaf.not_after_unix_ms
        if not in_time or leaf.device_id != found.device_id:
            return refuse(NodeReason.GATE_NO_CERTIFICATE)
        if claimed_device_id is not None and claimed_device_id != found.device_id:
            return refuse(NodeReason.GATE_OTHER_DEVICE)
        if certificate is not None and certificate.state is CertificateState.PENDING:
            return await self._first_use(leaf.fingerprint)
        return found

    def replay(self, scope: str, replay: Replay) -> NodeRefusal | None:
        """Check a `ReplayProtection`; the scope is a device's id or a source address."""
        return self._replays.check(scope, replay.nonce, replay.timestamp_unix_ms, self.now())

    async def issue_for_request(
        self, verified: VerifiedPairing, request_id: str, csr_pem: str
    ) -> IssuedCertificate:
        """The one certificate of an approved request; asked again, the same, without a key."""

        async def issue(now: int) -> IssuedCertificate:
            before = self._ledger.of_request(request_id)
            self._raise_if(self._ledger.may_pair(verified.device_id))
            if before is not None:
                if before.revoked:
                    raise NodeRefused(refuse(NodeReason.DEVICE_REVOKED))
                return self._material(before)
            leaf, key_pem = self._sign(verified.device_id, csr_pem, now)
            outcome = self._ledger.pair(now, verified, request_id, leaf, self.settings.overlap_ms)
            await self._settle(outcome)
            return self._material(self._ledger.certificates[leaf.fingerprint], key_pem)

        return await self._locked(issue)

    async def rotate(self, caller: PairedDevice, csr_pem: str) -> IssuedCertificate:
        """The caller's next certificate, good from its first use on."""

        async def rotate(now: int) -> IssuedCertificate:
            self._raise_if(self._ledger.may_rotate(now, caller.fingerprint))
            leaf, key_pem = self._sign(caller.device_id, csr_pem, now)
            outcome = self._ledger.rotate(now, caller.fingerprint, leaf, self.settings.overlap_ms)
            await self._settle(outcome)
            return self._material(self._ledger.certificates[leaf.fingerprint], key_pem)

        return await self._locked(rotate)

    async def demand_rotation(
        self, device_id: str, within_ms: int, reason: str, actor: str
    ) -> DeviceRecord:
        """What the device has now ends after `within_ms` at the latest. Raises NodeRefused."""

        async def demand(now: int) -> DeviceRecord:
            asked = RotationDemand(now, now + within_ms, actor, reason)
            await self._settle(self._ledger.demand_rotation(device_id, asked))
            return self._ledger.devices[device_id]

        return await self._locked(demand)

    async def revoke_device(self, device_id: str, reason: str, actor: str) -> None:
        """The device and all its certificates, at once."""
        await self._end(
            device_id, lambda now: self._ledger.revoke_device(now, device_id, reason, actor)
        )

    async def remove_device(self, device_id: str, reason: str, actor: str) -> None:
        """As revoking, and the device is forgotten: its id may pair again."""
        await self._end(
            device_id, lambda now: self._ledger.remove_device(now, device_id, reason, actor)
        )

    async def revoke_fingerprint(self, fingerprint: str, reason: str, actor: str) -> None:
        """One certificate, and those rotated from it."""
        certificate = self._ledger.certificates.get(fingerprint)
        await self._end(
            certificate.device_id if certificate else None,
            lambda now: self._ledger.revoke_fingerprint(now, fingerprint, reason, actor),
        )

    async def rotate_authority(self, reason: str, actor: str) -> str:
        """A new authority signs devices; the old one is trusted until its last leaf has gone.

        Raises NodeRefused while an earlier change is under way.
        """

        async def rotate(now: int) -> str:
            self._raise_if(self._ledger.may_rotate_authority())
            record = make_authority(self._master, now)
            await self._settle(self._ledger.add_authority(now, record, actor, reason))
            return record.authority_id

        return await self._locked(rotate)

    def authorities(self) -> tuple[AuthorityStanding, ...]:
        """Those trusted now, oldest first."""
        now, trusted = self.now(), self.authority.trusted
        standings = []
        for record, certificate in zip(self._ledger.trusted_authorities(), trusted, strict=True):
            good = self._ledger.good_leaves(now, record.authority_id)
            standing = AuthorityStanding(
                authority_id=record.authority_id,
                certificate_sha256=fingerprint_of(record.certificate_der),
                created_at_unix_ms=record.created_at_unix_ms,
                expires_at_unix_ms=unix_ms(certificate.not_valid_after_utc),
                signs_devices=certificate is trusted[-1],
                signs_servers=certificate is trusted[0],
                good_certificates=len(good),
                last_ends_at_unix_ms=max((c.ends_at_unix_ms for c in good), default=None),
            )
            standings.append(standing)
        return tuple(standings)

    def server_identity(self) -> ServerIdentity:
        """What our listeners present now; a new one when due, so ask at every handshake."""
        now, server = self.now(), self._server
        signer = self._ledger.trusted_authorities()[0].authority_id
        if server is None or now >= server.renew_at_unix_ms or server.authority_id != signer:
            server = self._authority.make_server_identity(
                self.settings.server_names, now, self.settings.server_life_ms
            )
            self._server = server
        return server

    def device(self, device_id: str) -> DeviceRecord | None:
        return self._ledger.devices.get(device_id)

    def devices(self, kind: ClientKind | None = None) -> tuple[DeviceRecord, ...]:
        """Paired and revoked devices, of one kind or of all."""
        every = self._ledger.devices.values()
        return tuple(device for device in every if kind is None or device.client_kind is kind)

    def history(self, device_id: str) -> tuple[CertificateRecord, ...]:
        """A device's certificates, oldest first."""
        return self._ledger.history(device_id)

    def certificates(self) -> Iterator[KnownCertificate]:
        """Every one that is remembered, authorities and the listeners' too, in no order."""
        now = self.now()
        records = sorted(self._ledger.authorities.values(), key=lambda a: a.created_at_unix_ms)
        yield from known_certificates.of_authorities(records, now)
        yield known_certificates.of_server(self.server_identity())
        for record in self._ledger.certificates.values():
            shut_out = isinstance(self.check(record.fingerprint, now), NodeRefusal)
            yield known_certificates.of_device(record, now, shut_out=shut_out)

    async def _first_use(self, fingerprint: str) -> PairedDevice | NodeRefusal:
        async def use(now: int) -> PairedDevice | NodeRefusal:
            found = self.check(fingerprint, now)
            decision = self._ledger.first_use(now, fingerprint)
            if isinstance(found, PairedDevice) and decision is not None:
                await self._settle(decision)
            return found

        try:
            return await self._locked(use)
        except NodeRefused as refused:
            return refused.refusal

    async def _note_forgotten(self, leaf: VerifiedLeaf) -> None:
        """Our authority signed it, and we do not know of it: an older database was put back, or
        the authority's key is in other hands. Written down once for each device named."""
        if leaf.device_id in self._forgotten or len(self._forgotten) >= MAX_FORGOTTEN_NOTED:
            return
        self._forgotten.add(leaf.device_id)
        _log.error(
            "a certificate of our authority is not remembered (device %s): identity.sqlite3 is"
            " older than it should be, or the authority's key was stolen",
            leaf.device_id,
        )

        async def note(now: int) -> None:
            detail = {"device_id": leaf.device_id, "fingerprint": leaf.fingerprint}
            event = IdentityEvent(IdentityEventReason.CERTIFICATE_FORGOTTEN, "fleet", detail)
            await self._settle(IdentityDecision(now, events=(event,)))

        await self._locked(note)

    async def _end(self, device_id: str | None, act: Callable[[int], Outcome]) -> None:
        async def end(now: int) -> None:
            outcome = act(now)
            try:
                await self._settle(outcome)
            except NodeRefused as refused:
                unwritten = refused.refusal.reason is NodeReason.STORE_UNAVAILABLE
                if unwritten and device_id is not None and isinstance(outcome, IdentityDecision):
                    self._suspended.add(device_id)
                    self._tell(outcome.notices)
                raise
            if device_id is not None:
                self._suspended.discard(device_id)

        await self._locked(end)

    def _unwritten_end(self, certificate: CertificateRecord, now: int) -> bool:
        return not certificate.revoked and self._ledger.has_lapsed(certificate, now)

    def _sign(self, device_id: str, csr_pem: str, now: int) -> tuple[IssuedLeaf, str]:
        self._raise_if(csr_refusal(csr_pem, required=not self.settings.allow_server_generated_keys))
        life_ms = self.settings.device_life_ms
        if not csr_pem:
            return self._authority.make_key_and_leaf(device_id, now, life_ms)
        leaf = self._authority.sign_request(csr_pem, device_id, now, life_ms)
        if leaf is None:
            raise NodeRefused(refuse(NodeReason.CSR_INVALID))
        return leaf, ""

    def _material(self, record: CertificateRecord, key_pem: str = "") -> IssuedCertificate:
        return IssuedCertificate(
            certificate_pem=record.certificate_pem,
            fingerprint=record.fingerprint,
            gateway_ca_certificate_pem=self._authority.trust_bundle_pem,
            cert_expires_at_unix_ms=record.not_after_unix_ms,
            private_key_pem=key_pem,
        )

    @staticmethod
    def _raise_if(refusal: NodeRefusal | None) -> None:
        if refusal is not None:
            raise NodeRefused(refusal)
