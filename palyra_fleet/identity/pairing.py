"""PairingLedger: codes, sessions and requests as a state machine that takes `now` and randomness.

A command answers with a `PairingDecision`: what to make durable, what to change in memory, and the
answer. Nothing changes until `apply`, which the service calls once the store has the change; only
wrong guesses count at once, and sessions that are over go. Codes are known by keyed hash, over
method and code together, so a right code of the wrong method is no code. A code is reserved by one
session at a time, which never outlives it, and is spent only by a verification, completed or
failed. Sessions and their X25519 secrets live in memory only: after a restart the codes are free.
Times: Unix ms; the caller's `now` never goes back. Source: specification 30, section 3. Pure.
"""

import hmac
from dataclasses import dataclass, field, replace
from typing import Final

from palyra_fleet.identity import pairing_transcript as transcript
from palyra_fleet.identity.guess_limits import GuessLimiter
from palyra_fleet.identity.messages import (
    BeginPairing,
    BegunPairing,
    CompletedPairing,
    CompletePairing,
)
from palyra_fleet.identity.pairing_input import (
    code_of,
    completion_refusal,
    kind_of,
)
from palyra_fleet.identity.records import (
    ClientKind,
    CodeMethod,
    DevicePairingCodeRecord,
    DevicePairingRequestRecord,
    PairingChange,
    PairingSnapshot,
    RequestState,
    VerifiedPairing,
)
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, refuse
from palyra_fleet.wire.keys import signature_is_valid

MIN_CODE_MS: Final = 30_000
MAX_CODE_MS: Final = 24 * 60 * 60 * 1000
_NO_CHANGE: Final = PairingChange()


@dataclass(frozen=True, slots=True)
class PairingSettings:
    """Lives and limits."""

    code_ms: int = 10 * 60 * 1000
    session_ms: int = 5 * 60 * 1000
    request_ms: int = 60 * 60 * 1000
    collect_ms: int = 10 * 60 * 1000
    """How long an approved device has at least to fetch its certificate."""
    max_sessions: int = 10_000
    max_pins: int = 32
    max_codes: int = 1_000
    max_open_requests: int = 10_000
    keep_finished_ms: int = 7 * 24 * 60 * 60 * 1000
    keep_finished: int = 1_000


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class PairingSession:
    """One attempt. Its secret is nowhere but here, and in no `repr`."""

    session_id: str
    client_kind: ClientKind
    code: DevicePairingCodeRecord
    challenge: bytes
    gateway_secret: bytes
    gateway_public: bytes
    expires_at_unix_ms: int

    def __repr__(self) -> str:
        return f"PairingSession({self.session_id}, until {self.expires_at_unix_ms})"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SessionSeed:
    """Fresh values of one session: its id (a ULID), an X25519 secret and a challenge, 32 bytes."""

    session_id: str
    gateway_secret: bytes
    challenge: bytes


@dataclass(frozen=True, slots=True)
class PairingDecision[A]:
    """The whole effect of one command, and its answer, which may be a refusal."""

    answer: A | NodeRefusal
    change: PairingChange = _NO_CHANGE
    begun: PairingSession | None = None
    ended_session: str | None = None


@dataclass(slots=True)
class PairingLedger:
    """Everything pairing knows. `pepper` keys the hashes of codes.

    `makes_keys`: clients that send no certificate request are let through (off by default).
    """

    settings: PairingSettings
    pepper: bytes = field(repr=False)
    makes_keys: bool = False
    guesses: GuessLimiter = field(default_factory=GuessLimiter)
    codes: dict[str, DevicePairingCodeRecord] = field(default_factory=dict)
    requests: dict[str, DevicePairingRequestRecord] = field(default_factory=dict)
    sessions: dict[str, PairingSession] = field(default_factory=dict)
    _reserved: dict[str, str] = field(default_factory=dict)
    _by_approval: dict[str, str] = field(default_factory=dict)

    def load(self, snapshot: PairingSnapshot) -> None:
        self._apply_change(PairingChange(put_codes=snapshot.codes, put_requests=snapshot.requests))

    def apply(self, decision: PairingDecision[object]) -> None:
        """Take over a decision whose change is durable."""
        self._apply_change(decision.change)
        if decision.begun is not None:
            self.sessions[decision.begun.session_id] = decision.begun
            self._reserved[decision.begun.code.code_hash] = decision.begun.session_id
        if decision.ended_session is not None:
            self._end(decision.ended_session)

    def hash_of(self, method: CodeMethod, code: str) -> str:
        """The name of a code: HMAC-SHA256 over method and code."""
        return hmac.digest(self.pepper, f"{method.value}\0{code}".encode(), "sha256").hex()

    def mint(
        self, now: int, method: CodeMethod, code: str, issued_by: str, ttl_ms: int | None
    ) -> PairingDecision[DevicePairingCodeRecord]:
        """Remember a fresh code; its life is clamped to 30 s .. 24 h."""
        live = [record for record in self.codes.values() if now < record.expires_at_unix_ms]
        pins = sum(record.method is CodeMethod.PIN for record in live)
        full = len(live) >= self.settings.max_codes
        if full or (method is CodeMethod.PIN and pins >= self.settings.max_pins):
            return PairingDecision(refuse(NodeReason.CODES_FULL))
        wanted = self.settings.code_ms if ttl_ms is None else ttl_ms
        expires = now + min(max(wanted, MIN_CODE_MS), MAX_CODE_MS)
        record = DevicePairingCodeRecord(
            self.hash_of(method, code), method, issued_by, now, expires
        )
        return PairingDecision(record, PairingChange(put_codes=(record,)))

    def withdraw(self, code_hash: str) -> PairingDecision[None]:
        """Take a code back. A session that reserved it cannot complete any more."""
        if code_hash not in self.codes:
            return PairingDecision(refuse(NodeReason.CODE_MISSING))
        return PairingDecision(None, PairingChange(remove_codes=(code_hash,)))

    def begin(
        self, now: int, asked: BeginPairing, source: str, seed: SessionSeed
    ) -> PairingDecision[BegunPairing]:
        """Reserve a code. Every wrong, late, taken or held-back code has one answer."""
        kind = kind_of(asked.client_kind)
        if isinstance(kind, NodeRefusal):
            return PairingDecision(kind)
        sent = code_of(asked)
        if isinstance(sent, NodeRefusal):
            return PairingDecision(sent)
        method, code = sent
        held_back = self.guesses.holds_back(source, method, now)
        record = self._free_code(self.hash_of(method, code), now)
        if held_back or record is None:
            if not held_back:
                self.guesses.wrong(source, now)
            return PairingDecision(refuse(NodeReason.CODE_MISSING))
        if self._live_sessions(now) >= self.settings.max_sessions:
            return PairingDecision(refuse(NodeReason.SESSIONS_FULL))
        session = PairingSession(
            session_id=seed.session_id,
            client_kind=kind,
            code=record,
            challenge=seed.challenge,
            gateway_secret=seed.gateway_secret,
            gateway_public=transcript.public_of(seed.gateway_secret),
            expires_at_unix_ms=min(now + self.settings.session_ms, record.expires_at_unix_ms),
        )
        answer = BegunPairing(
            session_id=session.session_id,
            client_kind=kind,
            gateway_ephemeral_public=session.gateway_public,
            challenge=session.challenge,
            expires_at_unix_ms=session.expires_at_unix_ms,
        )
        return PairingDecision(answer, begun=session)

    def complete(
        self,
        now: int,
        asked: CompletePairing,
        source: str,
        approval_id: str,
        *,
        device_is_revoked: bool,
    ) -> PairingDecision[CompletedPairing]:
        """Verify a device. Consumes nothing before the proof is looked at."""
        malformed = completion_refusal(asked, csr_required=not self.makes_keys)
        if malformed is not None:
            return PairingDecision(malformed)
        if device_is_revoked:
            return PairingDecision(_unverified("device is revoked"))
        session = self.sessions.get(asked.session_id)
        if session is None:
            return PairingDecision(_unverified("pairing session was not found"))
        if now >= session.expires_at_unix_ms:
            return PairingDecision(_unverified("pairing session has expired"))
        if session.code.code_hash not in self.codes:
            return PairingDecision(refuse(NodeReason.CODE_NOT_RESERVED))
        if max(asked.version, 1) != transcript.PROTOCOL_VERSION:
            return PairingDecision(_unverified("protocol version does not match"))
        if asked.client_kind != session.client_kind:
            return PairingDecision(_unverified("client kind does not match"))
        if self._open_requests(now) >= self.settings.max_open_requests:
            return PairingDecision(refuse(NodeReason.REQUESTS_FULL))
        spent = PairingChange(remove_codes=(session.code.code_hash,))
        failed = self._verify(now, session, asked, source)
        if failed is not None:
            return PairingDecision(failed, spent, ended_session=session.session_id)
        request = self._request(now, session, asked, approval_id)
        verified = request.verified_pairing
        answer = CompletedPairing(
            approval_id, verified.identity_fingerprint, verified.transcript_hash_hex
        )
        change = replace(spent, put_requests=(request,))
        return PairingDecision(answer, change, ended_session=session.session_id)

    def request_of_approval(self, approval_id: str) -> DevicePairingRequestRecord | None:
        request_id = self._by_approval.get(approval_id)
        return None if request_id is None else self.requests[request_id]

    def sweep(self, now: int) -> PairingDecision[None]:
        """What is over goes: sessions at once, codes and requests with the change."""
        for session in [s for s in self.sessions.values() if now >= s.expires_at_unix_ms]:
            self._end(session.session_id)
        codes = [c.code_hash for c in self.codes.values() if now >= c.expires_at_unix_ms]
        expired = [
            replace(request, state=RequestState.EXPIRED)
            for request in self.requests.values()
            if is_over(request, now)
        ]
        finished = sorted(
            (r for r in self.requests.values() if r.state.finished),
            key=lambda r: r.requested_at_unix_ms,
        )
        too_many = max(len(finished) - self.settings.keep_finished, 0)
        old = [
            request.request_id
            for place, request in enumerate(finished)
            if place < too_many
            or now - request.requested_at_unix_ms >= self.settings.keep_finished_ms
        ]
        return PairingDecision(None, PairingChange((), tuple(codes), tuple(expired), tuple(old)))

    def _free_code(self, code_hash: str, now: int) -> DevicePairingCodeRecord | None:
        record = self.codes.get(code_hash)
        if record is None or now >= record.expires_at_unix_ms:
            return None
        holder = self.sessions.get(self._reserved.get(code_hash, ""))
        taken = holder is not None and now < holder.expires_at_unix_ms
        return None if taken else record

    def _live_sessions(self, now: int) -> int:
        return sum(now < session.expires_at_unix_ms for session in self.sessions.values())

    def _open_requests(self, now: int) -> int:
        return sum(
            not request.state.finished and not is_over(request, now)
            for request in self.requests.values()
        )

    def _verify(
        self, now: int, session: PairingSession, asked: CompletePairing, source: str
    ) -> NodeRefusal | None:
        hashed = self.hash_of(session.code.method, asked.proof)
        if not hmac.compare_digest(hashed, session.code.code_hash):
            self.guesses.wrong(source, now)
            return _unverified("proof does not match")
        payload = transcript.signature_payload(
            transcript.PROTOCOL_VERSION,
            session.session_id,
            session.challenge,
            session.gateway_public,
            asked.device_id,
            session.client_kind.value,
            asked.proof,
        )
        if not signature_is_valid(asked.device_signing_public, asked.challenge_signature, payload):
            return _unverified("challenge signature is not valid")
        shared = transcript.shared_secret(session.gateway_secret, asked.device_x25519_public)
        if shared is None:
            return _unverified("device X25519 key is not valid")
        expected = transcript.transcript_mac(
            shared,
            session.challenge,
            transcript.transcript_context(
                transcript.PROTOCOL_VERSION,
                session.session_id,
                asked.device_id,
                session.client_kind.value,
            ),
        )
        if not hmac.compare_digest(expected, asked.transcript_mac):
            return _unverified("transcript MAC does not match")
        return None

    def _request(
        self, now: int, session: PairingSession, asked: CompletePairing, approval_id: str
    ) -> DevicePairingRequestRecord:
        verified = VerifiedPairing(
            device_id=asked.device_id,
            client_kind=session.client_kind,
            identity_fingerprint=transcript.identity_fingerprint(asked.device_signing_public),
            signing_public_key_hex=asked.device_signing_public.hex(),
            transcript_hash_hex=transcript.transcript_hash(asked.transcript_mac),
        )
        return DevicePairingRequestRecord(
            request_id=session.session_id,
            session_id=session.session_id,
            device_id=asked.device_id,
            client_kind=session.client_kind,
            method=session.code.method,
            code_issued_by=session.code.issued_by,
            requested_at_unix_ms=now,
            expires_at_unix_ms=now + self.settings.request_ms,
            approval_id=approval_id,
            state=RequestState.PENDING,
            verified_pairing=verified,
            certificate_signing_request_pem=asked.certificate_signing_request_pem,
        )

    def _end(self, session_id: str) -> None:
        session = self.sessions.pop(session_id, None)
        if session is not None and self._reserved.get(session.code.code_hash) == session_id:
            del self._reserved[session.code.code_hash]

    def _apply_change(self, change: PairingChange) -> None:
        for code in change.put_codes:
            self.codes[code.code_hash] = code
        for code_hash in change.remove_codes:
            self.codes.pop(code_hash, None)
        for request in change.put_requests:
            self.requests[request.request_id] = request
            self._by_approval[request.approval_id] = request.request_id
        for request_id in change.remove_requests:
            gone = self.requests.pop(request_id, None)
            if gone is not None:
                self._by_approval.pop(gone.approval_id, None)


def is_over(request: DevicePairingRequestRecord, now: int) -> bool:
    """An undecided or uncollected request whose time has run out."""
    return not request.state.finished and now >= request.expires_at_unix_ms


def _unverified(why: str) -> NodeRefusal:
    return refuse(NodeReason.VERIFICATION, why=why)
