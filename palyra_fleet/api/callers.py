"""Who calls: a principal by bearer token, a worker or proxy by a proof over the very request.

Both give an `Identity` or raise ApiRefusal with one answer for every way to be wrong, so that a
refusal tells nothing about which tokens or keys exist. A right token always passes, also while its
address is rate limited: on a shared loopback address a lock-out would let any local program keep
the operator from quarantining a worker, and a 256-bit token is not to be guessed.
Times are Unix milliseconds.
"""

import base64
import binascii
import hashlib
import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from palyra_fleet.api.problems import ApiReason, ApiRefusal, Headers
from palyra_fleet.issuers.keeper import IssuerKeys
from palyra_fleet.issuers.tokens import FAULTS, NotBelieved, TokenFault, has_form
from palyra_fleet.logs.fields import Field, told
from palyra_fleet.principals.book import Principal, PrincipalBook
from palyra_fleet.principals.roles import Roles
from palyra_fleet.service.fleet_service import Caller
from palyra_fleet.wire.request_proof import (
    MAX_REMEMBERED_PER_KEY,
    WINDOW_MS,
    ParsedProof,
    ProofRefused,
    ProofsExhausted,
    ProofVerifier,
    parse_proof,
)

ATTEMPTS_PER_WINDOW: Final = 10
ATTEMPT_WINDOW_MS: Final = 60_000
MAX_ADDRESSES: Final = 1024
_log = logging.getLogger(__name__)


class Who(StrEnum):
    """Who may call a route. STRANGER: anybody, on the admin listener only. KEY_IN_BODY: anybody who
    holds the key the body names. DEVICE: a paired machine, by its certificate alone."""

    ANYBODY = "anybody"
    STRANGER = "stranger"
    KEY_IN_BODY = "key_in_body"
    WORKER = "worker"
    PROXY = "proxy"
    OPERATOR = "operator"
    DEVICE = "device"


_MOST_PER_KEY: Final = {
    Who.ANYBODY: MAX_REMEMBERED_PER_KEY,
    Who.STRANGER: MAX_REMEMBERED_PER_KEY,
    Who.KEY_IN_BODY: MAX_REMEMBERED_PER_KEY,
    Who.WORKER: MAX_REMEMBERED_PER_KEY,
    Who.PROXY: 100_000,
    Who.OPERATOR: MAX_REMEMBERED_PER_KEY,
    Who.DEVICE: MAX_REMEMBERED_PER_KEY,
}
"""How many proofs of one key are remembered, by kind of caller."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller that was believed. `id` is a worker id, a device's, or the name of a proxy or a
    principal."""

    who: Who
    id: str
    roles: Roles = frozenset()


NOBODY: Final = Identity(Who.ANYBODY, "nobody")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of a request a proof covers. `target` is the path with its query, as received."""

    method: str
    target: str
    body: bytes


@dataclass(slots=True)
class FailedAttempts:
    """Counts wrong tokens per address in a window; remembers a bounded number of addresses."""

    _counts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def note(self, address: str, now_unix_ms: int) -> int:
        """Note one failure; how many the address has had in this window, this one included."""
        began, count = self._counts.pop(address, (now_unix_ms, 0))
        if not 0 <= now_unix_ms - began < ATTEMPT_WINDOW_MS:
            began, count = now_unix_ms, 0
        if len(self._counts) >= MAX_ADDRESSES:
            del self._counts[next(iter(self._counts))]
        self._counts[address] = (began, count + 1)
        return count + 1


@dataclass(frozen=True, slots=True)
class Believed:
    """A principal, and when what was shown ends by itself (None: with the principal)."""

    principal: Principal
    until_unix_ms: int | None = None


@dataclass(slots=True)
class TokenGate:
    """Believes the tokens that the book knows, and what `issuers` sign about subjects it knows."""

    book: PrincipalBook
    issuers: IssuerKeys | None = None
    _failed: FailedAttempts = field(default_factory=FailedAttempts)

    def operator(self, authorization: str | None, address: str, now_unix_ms: int) -> Identity:
        """The caller that a token stands for."""
        principal = self.believed(authorization, address, now_unix_ms).principal
        return Identity(Who.OPERATOR, principal.name, principal.roles)

    def believed(self, authorization: str | None, address: str, now_unix_ms: int) -> Believed:
        """Whose token this is. Raises ApiRefusal, the same for every way to be wrong."""
        scheme, _, token = (authorization or "").partition(" ")
        found: Believed | NotBelieved | None = None
        if scheme.lower() == "bearer":
            found = self._of_token(token.strip(), now_unix_ms)
        if isinstance(found, Believed):
            return found
        attempt = self._failed.note(address, now_unix_ms)
        if found is not None and attempt <= ATTEMPTS_PER_WINDOW:
            _log_refused(found, address, is_last=attempt == ATTEMPTS_PER_WINDOW)
        if attempt <= ATTEMPTS_PER_WINDOW:
            challenge = Headers({"WWW-Authenticate": 'Bearer realm="palyra-fleet"'})
            raise ApiRefusal(ApiReason.TOKEN_REFUSED, headers=challenge)
        wait = Headers({"Retry-After": str(ATTEMPT_WINDOW_MS // 1000)})
        raise ApiRefusal(ApiReason.TOO_MANY_ATTEMPTS, headers=wait)

    def _of_token(self, token: str, now_unix_ms: int) -> Believed | NotBelieved | None:
        """None: neither a token of ours nor written as one of an issuer."""
        principal = self.book.by_token(token, now_unix_ms)
        if principal is not None:
            return Believed(principal)
        if self.issuers is None or not has_form(token):
            return None
        about = self.issuers.subject_of(token, now_unix_ms)
        if isinstance(about, NotBelieved):
            return about
        principal = self.book.by_subject(about.subject, now_unix_ms)
        if principal is None:
            return NotBelieved(TokenFault.SUBJECT_UNKNOWN, about.issuer_name)
        return Believed(principal, about.until_unix_ms)


@dataclass(slots=True)
class ProofGate:
    """Believes a fresh proof of a key that the ledger knows, or that the body itself names.

    Spent proofs are remembered per kind of caller, so that a flood of workers or strangers cannot
    fill the memory that proxies need to hand in evidence, whatever route they flood. A proof names
    its route and a key has one kind, so one that was spent is worth nothing elsewhere. Nor can one
    worker fill the memory of workers: the number per key is bounded. A proxy's bound is higher,
    since it must get evidence through.
    """

    caller_by_key: Callable[[str], Caller | None]
    _verifiers: dict[Who, ProofVerifier] = field(
        default_factory=lambda: {who: ProofVerifier(_MOST_PER_KEY[who]) for who in Who}
    )

    def well_formed(self, header: str | None) -> ParsedProof:
        """The proof's form, before the body is read."""
        try:
            return parse_proof(header)
        except ProofRefused as refused:
            raise _proof_refused() from refused

    def known_caller(
        self,
        proof: ParsedProof,
        request: SignedRequest,
        who: Who,
        device_id: str | None,
        now_unix_ms: int,
    ) -> Identity:
        """The worker or proxy behind the proof, if it is of the kind that may call, and its key
        belongs to the device that the request came from (None: this machine)."""
        caller = self.caller_by_key(proof.key_thumbprint)
        if caller is None:
            raise _proof_refused()
        self._verify(Who(caller.kind), proof, caller.public_key, request, now_unix_ms)
        if caller.kind != who.value:
            raise ApiRefusal(ApiReason.CALLER_NOT_ALLOWED)
        if caller.device_id != device_id:
            raise ApiRefusal(ApiReason.OTHER_DEVICE)
        return Identity(who, caller.id)

    def still(self, key_sha256: str, identity: Identity, device_id: str | None) -> None:
        """Raise ApiRefusal unless this is still the key of a caller that was believed."""
        caller = self.caller_by_key(key_sha256)
        now = None if caller is None else (caller.kind, caller.id, caller.device_id)
        if now != (identity.who.value, identity.id, device_id):
            raise _proof_refused()

    def holder_of(
        self, public_key: str, proof: ParsedProof, request: SignedRequest, now_unix_ms: int
    ) -> Identity:
        """Anybody who proves to hold the key (base64) that the body names."""
        try:
            raw = base64.b64decode(public_key, validate=True)
        except (binascii.Error, ValueError):
            raise _proof_refused() from None
        if not hmac.compare_digest(hashlib.sha256(raw).hexdigest(), proof.key_thumbprint):
            raise _proof_refused()
        self._verify(Who.KEY_IN_BODY, proof, raw, request, now_unix_ms)
        return Identity(Who.KEY_IN_BODY, proof.key_thumbprint)

    def _verify(
        self,
        who: Who,
        proof: ParsedProof,
        public_key: bytes,
        request: SignedRequest,
        now_unix_ms: int,
    ) -> None:
        try:
            self._verifiers[who].verify(
                proof, public_key, request.method, request.target, request.body, now_unix_ms
            )
        except ProofsExhausted as exhausted:
            wait = Headers({"Retry-After": str(WINDOW_MS // 1000)})
            raise ApiRefusal(ApiReason.TOO_MANY_CALLS, str(exhausted), wait) from exhausted
        except ProofRefused as refused:
            raise _proof_refused() from refused


def _log_refused(why: NotBelieved, address: str, *, is_last: bool) -> None:
    """Tell the operator why, with nothing of the token. A line for each wrong token that an address
    may bring in a window, so that nobody fills the log; the last says that there may be more."""
    extra = told(
        {Field.ACTION: "token-refused", Field.REASON: why.fault, Field.ADDRESS: address or None}
    )
    more = "; more from there are not told for a minute" if is_last else ""
    said = (why.issuer_name or "-", why.fault, FAULTS[why.fault], more)
    _log.warning("a token of issuer %s was refused: %s: %s%s", *said, extra=extra)


def _proof_refused() -> ApiRefusal:
    return ApiRefusal(
        ApiReason.PROOF_REFUSED, headers=Headers({"WWW-Authenticate": "Palyra-Proof"})
    )
