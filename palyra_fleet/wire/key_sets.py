"""JSON Web Key Sets (RFC 7517): public keys by `kid`, each with the one algorithm it is used with.

The key decides the algorithm (RS256 for RSA, ES256 for P-256), whatever a token's header says. Two
readings: `read_key_set` is for a set that somebody wrote for us and refuses all that we cannot use;
`signing_keys` is for the set of an issuer that serves others, too, and leaves out keys of other
kinds and uses. Both refuse symmetric and private keys, a `kid` that stands twice, and a set without
a key. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from palyra_fleet.wire.signatures import LEAST_RSA_BITS

MAX_KEYS: Final = 100
_PINNED: Final[Mapping[str, Literal["RS256", "ES256"]]] = {"RSA": "RS256", "EC": "ES256"}
_SECRET: Final = frozenset({"d", "k", "p", "q"})


class KeySetError(ValueError):
    """The key set cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """One key of the set, and the only algorithm it is used with."""

    key: RSAPublicKey | EllipticCurvePublicKey
    algorithm: Literal["RS256", "ES256"]


def read_key_set(content: Mapping[str, Any]) -> dict[str, VerifyingKey]:
    """Every key of the set by `kid`, or none. Raises KeySetError."""
    keys: dict[str, VerifyingKey] = {}
    for number, entry in _entries(content):
        kid = entry.get("kid")
        if not isinstance(kid, str):
            raise KeySetError(f"key {number}: expected an object with a kid")
        if kid in keys:
            raise KeySetError(f"key {number}: its kid stands twice")
        if str(entry.get("kty")) not in _PINNED or not _SECRET.isdisjoint(entry):
            raise KeySetError(f"key {number}: expected a public RSA or EC key")
        keys[kid] = _verifying_key(number, entry)
    return keys


def signing_keys(content: Mapping[str, Any]) -> dict[str, VerifyingKey]:
    """The keys of the set that verify with RS256 or ES256, by `kid`. Raises KeySetError."""
    keys: dict[str, VerifyingKey] = {}
    seen: set[str] = set()
    for number, entry in _entries(content):
        if entry.get("kty") == "oct" or not _SECRET.isdisjoint(entry):
            raise KeySetError(f"key {number}: a secret or private key was published")
        kid = entry.get("kid")
        if not isinstance(kid, str) or not _is_for_us(entry):
            continue
        if kid in seen:
            raise KeySetError(f"key {number}: its kid stands twice")
        seen.add(kid)
        keys[kid] = _verifying_key(number, entry)
    if not keys:
        raise KeySetError("expected at least one key with a kid, for RS256 or for ES256")
    return keys


def _is_for_us(entry: Mapping[str, Any]) -> bool:
    pinned = _PINNED.get(str(entry.get("kty")))
    curve = entry.get("crv", "P-256")
    return (
        pinned is not None
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", pinned) == pinned
        and curve == "P-256"
    )


def _entries(content: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    entries = content.get("keys")
    if not isinstance(entries, list) or not entries:
        raise KeySetError("expected a JSON Web Key Set with at least one key")
    if len(entries) > MAX_KEYS:
        raise KeySetError(f"expected at most {MAX_KEYS} keys")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise KeySetError(f"key {number}: expected an object with a kid")
    return list(enumerate(entries, 1))


def _verifying_key(number: int, entry: dict[str, Any]) -> VerifyingKey:
    pinned = _PINNED[entry["kty"]]
    if entry.get("alg", pinned) != pinned:
        raise KeySetError(f"key {number}: expected alg {pinned}")
    try:
        key = jwt.PyJWK(entry, pinned).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise KeySetError(f"key {number}: not a key of kind {entry['kty']}") from error
    match key:
        case RSAPublicKey() if key.key_size >= LEAST_RSA_BITS:
            return VerifyingKey(key, "RS256")
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return VerifyingKey(key, "ES256")
        case _:
            raise KeySetError(f"key {number}: expected RSA of {LEAST_RSA_BITS} bits, or P-256")
