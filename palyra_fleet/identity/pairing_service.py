"""PairingService: pairing for listeners and operators; one change at a time, durable first.

Gives the ledger its time and randomness, writes through the store, and has certificates issued.
A poll that finds an approved request issues its certificate, once however many ask at the same
time: identity keeps one certificate per request, also across a crash between its store and ours.
A private key made for a client (only where that is switched on) is in the one answer that issued
it; the next poll gets the same certificate without it. Nothing keeps the key.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from ulid import ULID

from palyra_fleet.identity import pairing_outcome as outcome
from palyra_fleet.identity.guess_limits import source_of
from palyra_fleet.identity.manager import IdentityManager
from palyra_fleet.identity.messages import (
    AskPairingStatus,
    BeginPairing,
    BegunPairing,
    CompletedPairing,
    CompletePairing,
    MintedCode,
    PairingStatus,
)
from palyra_fleet.identity.pairing import (
    PairingDecision,
    PairingLedger,
    PairingSettings,
    SessionSeed,
)
from palyra_fleet.identity.pairing_input import PIN_DIGITS
from palyra_fleet.identity.pairing_transcript import CHALLENGE_BYTES, KEY_BYTES
from palyra_fleet.identity.records import (
    CodeMethod,
    DevicePairingCodeRecord,
    DevicePairingRequestRecord,
    PairingMaterial,
    PairingStore,
)
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused, refuse
from palyra_fleet.store.protocol import StoreConflict, StoreFailed
from palyra_fleet.tasks import spawn

TOKEN_BYTES: Final = 32
_VOID: Final = frozenset({NodeReason.DEVICE_REVOKED, NodeReason.CSR_MISSING, NodeReason.KEY_REUSED})
"""Refusals of issuing that no later poll can overcome."""
_log = logging.getLogger(__name__)


class PairingService:
    """See `ports.Pairing`. Every method raises NodeRefused."""

    def __init__(
        self,
        identity: IdentityManager,
        store: PairingStore,
        settings: PairingSettings | None = None,
    ) -> None:
        self._identity = identity
        self._store = store
        self._lock = asyncio.Lock()
        self._ledger = PairingLedger(
            settings or PairingSettings(),
            identity.pairing_pepper,
            makes_keys=identity.settings.allow_server_generated_keys,
        )
        self._ledger.load(store.pairing_snapshot())

    async def begin(self, asked: BeginPairing, source: str) -> BegunPairing:
        """Reserve a code and open a session. Writes nothing."""
        address = source_of(source)
        if asked.replay is not None:
            replayed = self._identity.replay(f"pairing {address}", asked.replay)
            if replayed is not None:
                raise NodeRefused(replayed)
        now = self._identity.now()
        seed = SessionSeed(
            session_id=_fresh_id(now),
            gateway_secret=secrets.token_bytes(KEY_BYTES),
            challenge=secrets.token_bytes(CHALLENGE_BYTES),
        )
        return await self._locked(lambda: self._take(self._ledger.begin(now, asked, address, seed)))

    async def complete(self, asked: CompletePairing, source: str) -> CompletedPairing:
        """Verify the device; an operator decides next."""

        async def complete() -> CompletedPairing:
            now = self._identity.now()
            device = self._identity.device(asked.device_id)
            decision = self._ledger.complete(
                now,
                asked,
                source_of(source),
                _fresh_id(now),
                device_is_revoked=device is not None and device.revoked,
            )
            return await self._take(decision)

        return await self._locked(complete)

    async def status(self, asked: AskPairingStatus) -> PairingStatus:
        """Where the request stands; issues the certificate of an approved one."""

        async def poll() -> PairingStatus:
            found = await self._take(outcome.poll(self._ledger, self._identity.now(), asked))
            if isinstance(found, outcome.CertificateDue):
                return await self._issue(found.request)
            return found

        return await self._locked(poll)

    async def mint_code(
        self, method: CodeMethod, issued_by: str, ttl_ms: int | None = None
    ) -> MintedCode:
        """A new code from the operating system's randomness; told here once and kept by none."""

        async def mint() -> MintedCode:
            now = self._identity.now()
            code = self._unused_code(method)
            record = await self._take(self._ledger.mint(now, method, code, issued_by, ttl_ms))
            return MintedCode(code, record.code_hash, method, record.expires_at_unix_ms)

        return await self._locked(mint)

    async def withdraw_code(self, code_hash: str, actor: str) -> None:
        """Take a code back, also from a session that holds it."""
        await self._locked(lambda: self._take(self._ledger.withdraw(code_hash)))
        _log.info("pairing code %s was withdrawn by %s", code_hash[:12], actor)

    async def decide(
        self,
        approval_id: str,
        *,
        approve: bool,
        decided_by: str,
        reason: str = "",
        replace_identity: bool = False,
    ) -> DevicePairingRequestRecord:
        """An operator's decision, once. Replacing another identity takes saying so."""

        async def decide() -> DevicePairingRequestRecord:
            decision = outcome.decide(
                self._ledger,
                self._identity.now(),
                approval_id,
                self._standing(approval_id),
                approve=approve,
                decided_by=decided_by,
                reason=reason,
                replace_identity=replace_identity,
            )
            return await self._take(decision)

        return await self._locked(decide)

    async def sweep(self) -> None:
        """Write down what expired, and prune what finished long ago. Call it every minute or so."""
        await self._locked(lambda: self._take(self._ledger.sweep(self._identity.now())))

    def codes(self) -> tuple[DevicePairingCodeRecord, ...]:
        """Codes that are still good, by their hashes."""
        now = self._identity.now()
        return tuple(c for c in self._ledger.codes.values() if now < c.expires_at_unix_ms)

    def requests(self) -> tuple[DevicePairingRequestRecord, ...]:
        return tuple(self._ledger.requests.values())

    async def _issue(self, request: DevicePairingRequestRecord) -> PairingStatus:
        try:
            issued = await self._identity.issue_for_request(
                request.verified_pairing,
                request.request_id,
                request.certificate_signing_request_pem,
            )
        except NodeRefused as refused:
            if refused.refusal.reason not in _VOID:
                raise
            return await self._take(outcome.not_issued(request, refused.refusal.text))
        material = PairingMaterial(
            identity_fingerprint=request.verified_pairing.identity_fingerprint,
            mtls_client_certificate_pem=issued.certificate_pem,
            gateway_ca_certificate_pem=issued.gateway_ca_certificate_pem,
            cert_expires_at_unix_ms=issued.cert_expires_at_unix_ms,
        )
        decision = outcome.completed(request, material, issued.private_key_pem)
        return await self._take(decision)

    def _standing(self, approval_id: str) -> outcome.DeviceStanding:
        request = self._ledger.request_of_approval(approval_id)
        device = None if request is None else self._identity.device(request.device_id)
        if device is None:
            return outcome.DeviceStanding(revoked=False, identity_fingerprint=None)
        return outcome.DeviceStanding(device.revoked, device.identity_fingerprint)

    def _unused_code(self, method: CodeMethod) -> str:
        while True:
            code = _random_code(method)
            if self._ledger.hash_of(method, code) not in self._ledger.codes:
                return code

    async def _take[A](self, decision: PairingDecision[A]) -> A:
        """Make durable, apply, answer. Raises NodeRefused."""
        if decision.change:
            try:
                await self._store.commit_pairing(decision.change)
            except (StoreConflict, StoreFailed) as failure:
                _log.error("a pairing could not be written: %s", failure)
                raise NodeRefused(refuse(NodeReason.STORE_UNAVAILABLE)) from failure
        self._ledger.apply(decision)
        if isinstance(decision.answer, NodeRefusal):
            raise NodeRefused(decision.answer)
        return decision.answer

    async def _locked[T](self, act: Callable[[], Awaitable[T]]) -> T:
        """One at a time, and finished even if the caller goes away."""
        task = spawn(self._guarded(act), "pairing-command")
        result = await asyncio.shield(task)
        if isinstance(result, NodeRefused):
            raise result
        return result

    async def _guarded[T](self, act: Callable[[], Awaitable[T]]) -> T | NodeRefused:
        async with self._lock:
            try:
                return await act()
            except NodeRefused as refused:
                return refused


def _fresh_id(now_unix_ms: int) -> str:
    """A ULID whose random part is the operating system's: ids of one millisecond are unrelated."""
    return str(ULID.from_bytes(now_unix_ms.to_bytes(6, "big") + secrets.token_bytes(10)))


def _random_code(method: CodeMethod) -> str:
    if method is CodeMethod.PIN:
        return f"{secrets.randbelow(10**PIN_DIGITS):0{PIN_DIGITS}d}"
    return secrets.token_urlsafe(TOKEN_BYTES)
