"""Proof of possession on every request of a worker or a proxy to the fleet.

The caller signs method, target, body digest, time and a nonce with the key the fleet knows it by
(a worker's attested key, a proxy's enrolled key), so a stolen header replays nothing and no bearer
secret travels. Header: `Palyra-Proof: v1 <thumbprint>;<unix ms>;<nonce>;<base64 signature>`.
The verifier refuses times more than 60 s away and any nonce it has seen inside that window. It
remembers a bounded number of nonces, in all and of one key, so that a caller who floods it shuts
out itself long before others.
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, field

from palyra_fleet.wire.keys import SigningKey, signature_is_valid

HEADER = "Palyra-Proof"
WINDOW_MS = 60_000
MAX_REMEMBERED_NONCES = 200_000
MAX_REMEMBERED_PER_KEY = 4_096

_FORM = re.compile(
    r"v1 (?P<key>[0-9a-f]{64});(?P<at>[0-9]{1,15})"
    r";(?P<nonce>[A-Za-z0-9_-]{16,64});(?P<sig>[A-Za-z0-9+/=]{88})"
)


class ProofRefused(Exception):
    """The proof is missing, malformed, late, replayed or signed by another key."""


class ProofsExhausted(ProofRefused):
    """The proof is good, but too many of this key, or in all, are remembered: try again later."""


@dataclass(frozen=True, slots=True)
class ParsedProof:
    """A well-formed proof whose signature is not yet checked."""

    key_thumbprint: str
    at_unix_ms: int
    nonce: str
    signature: bytes


def _message(method: str, target: str, body: bytes, at_unix_ms: int, nonce: str) -> bytes:
    parts = (
        b"palyra-request-proof-v1",
        method.encode(),
        target.encode(),
        hashlib.sha256(body).digest(),
        str(at_unix_ms).encode(),
        nonce.encode(),
    )
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def prove(key: SigningKey, method: str, target: str, body: bytes, now_unix_ms: int) -> str:
    """The header value for one request. `target` is the path with its query, as sent."""
    nonce = secrets.token_urlsafe(18)
    signature = key.sign(_message(method, target, body, now_unix_ms, nonce))
    return f"v1 {key.thumbprint};{now_unix_ms};{nonce};{base64.b64encode(signature).decode()}"


def parse_proof(header: str | None) -> ParsedProof:
    """Read the header's form. Raises ProofRefused."""
    match = _FORM.fullmatch(header or "")
    if match is None:
        raise ProofRefused("the request carries no well-formed proof")
    try:
        signature = base64.b64decode(match["sig"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProofRefused("the proof's signature is not base64") from error
    return ParsedProof(match["key"], int(match["at"]), match["nonce"], signature)


@dataclass(slots=True)
class ProofVerifier:
    """Checks proofs and remembers their nonces for the length of the window."""

    most_per_key: int = MAX_REMEMBERED_PER_KEY
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)
    _per_key: dict[str, int] = field(default_factory=dict)

    def verify(
        self,
        proof: ParsedProof,
        public_key: bytes,
        method: str,
        target: str,
        body: bytes,
        now_unix_ms: int,
    ) -> None:
        """Raises ProofRefused unless the proof is this key's, fresh and not seen before."""
        if abs(now_unix_ms - proof.at_unix_ms) > WINDOW_MS:
            raise ProofRefused("the proof's time is more than 60 s away from the fleet's clock")
        message = _message(method, target, body, proof.at_unix_ms, proof.nonce)
        if not signature_is_valid(public_key, proof.signature, message):
            raise ProofRefused("the proof is not signed by the caller's key")
        self._forget_old(now_unix_ms)
        spent = (proof.key_thumbprint, proof.nonce)
        if spent in self._seen:
            raise ProofRefused("the proof was used before")
        of_key = self._per_key.get(proof.key_thumbprint, 0)
        if of_key >= self.most_per_key or len(self._seen) >= MAX_REMEMBERED_NONCES:
            raise ProofsExhausted("too many requests in the window; try again later")
        self._seen[spent] = max(now_unix_ms, proof.at_unix_ms) + WINDOW_MS
        self._per_key[proof.key_thumbprint] = of_key + 1

    def _forget_old(self, now_unix_ms: int) -> None:
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] >= now_unix_ms:
                return
            del self._seen[oldest]
            left = self._per_key.pop(oldest[0]) - 1
            if left:
                self._per_key[oldest[0]] = left
