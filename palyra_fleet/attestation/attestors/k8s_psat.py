"""`k8s_psat`: the worker runs in a pod of a Kubernetes cluster, by its projected token.

The token is a JWT that the cluster signed for our audience and bound to a pod. It is verified
offline against a configured key set: the key that `kid` names decides the algorithm (RS256 for RSA,
ES256 for P-256), whatever the header says; symmetric keys are refused when the set is read. The
evidence itself is signed by the worker's own key, so digests are the worker's word. A token is a
bearer secret and knows no nonce: it admits one key (see `OpenedEvidence`). That the pod still
exists is not asked; the token's short life stands for it. Pure.
Source: RFC 7515, 7519; KEP-1205 (claims `kubernetes.io`, `sub`); Kubernetes 1.30 documentation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from palyra_fleet.attestation.attestor import (
    OpenedEvidence,
    TrustedKeys,
    on_its_own_word,
    open_statement,
    refused,
    request_key,
    until,
)
from palyra_fleet.refusals import Refusal
from palyra_fleet.wire.backing import ServiceAccountBacking
from palyra_fleet.wire.keys import signature_is_valid
from palyra_fleet.wire.models import RegisterRequest
from palyra_fleet.wire.signatures import LEAST_RSA_BITS

LONGEST_LIFE_S: Final = 24 * 3600
_Text = Annotated[str, StringConstraints(min_length=1, max_length=253)]
_Uid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Seconds = Annotated[int, Field(ge=0, le=2**43)]


class KeySetError(ValueError):
    """The key set cannot be used; the text says why."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Reference(_Model):
    name: _Text
    uid: _Uid


class _Kubernetes(_Model):
    namespace: _Text
    serviceaccount: _Reference
    pod: _Reference


class _Claims(_Model):
    """The claims that are used, all of them required. Times: Unix seconds."""

    exp: _Seconds
    nbf: _Seconds
    iat: _Seconds
    sub: str
    kubernetes: _Kubernetes = Field(alias="kubernetes.io")


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """One key of the set, and the only algorithm it is used with."""

    key: RSAPublicKey | EllipticCurvePublicKey
    algorithm: Literal["RS256", "ES256"]


def read_key_set(content: Mapping[str, Any]) -> dict[str, VerifyingKey]:
    """A JSON Web Key Set (RFC 7517) by `kid`. Raises KeySetError."""
    entries = content.get("keys")
    if not isinstance(entries, list) or not entries:
        raise KeySetError("expected a JSON Web Key Set with at least one key")
    keys: dict[str, VerifyingKey] = {}
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
            raise KeySetError(f"key {number}: expected an object with a kid")
        if entry["kid"] in keys:
            raise KeySetError(f"key {number}: its kid stands twice")
        if entry.get("kty") not in {"RSA", "EC"} or "d" in entry:
            raise KeySetError(f"key {number}: expected a public RSA or EC key")
        keys[entry["kid"]] = _verifying_key(number, entry)
    return keys


def _verifying_key(number: int, entry: dict[str, Any]) -> VerifyingKey:
    pinned = "RS256" if entry["kty"] == "RSA" else "ES256"
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


@dataclass(frozen=True, slots=True)
class ClusterTrust:
    """Whose tokens are taken. `service_accounts` are pairs of namespace and name."""

    cluster: str
    issuer: str
    audience: str
    keys: Mapping[str, VerifyingKey]
    service_accounts: Sequence[tuple[str, str]]


class ServiceAccountAttestor:
    """Admits pods of the named service accounts of one cluster."""

    kind: Final = "k8s_psat"

    def __init__(self, trust: ClusterTrust) -> None:
        self._trust = trust

    def open(
        self, request: RegisterRequest, keys: TrustedKeys, now_unix_ms: int
    ) -> OpenedEvidence | Refusal:
        del keys
        backing = request.backing
        if not isinstance(backing, ServiceAccountBacking):
            return refused("the evidence comes without a service account token")
        claims = self._claims(backing.token, now_unix_ms)
        if isinstance(claims, Refusal):
            return claims
        identity = f"k8s_psat:{self._trust.cluster}:{claims.kubernetes.pod.uid}"
        own = partial(signature_is_valid, request_key(request))
        opened = open_statement(request, self.kind, own, identity)
        if isinstance(opened, Refusal):
            return opened
        opened = replace(opened, credential_issued_at_unix_ms=claims.iat * 1000)
        return on_its_own_word(until(opened, claims.exp * 1000))

    def claim(self, request: RegisterRequest, now_unix_ms: int) -> Refusal | None:
        del request, now_unix_ms
        return None

    def _claims(self, token: str, now_unix_ms: int) -> _Claims | Refusal:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, RecursionError):  # nothing of it is verified yet
            return refused("the service account token is not a JWT")
        known = self._trust.keys.get(kid) if isinstance(kid, str) else None
        if known is None:
            return refused("the service account token is signed by a key nobody configured")
        try:
            verified = jwt.decode(
                token,
                known.key,
                algorithms=[known.algorithm],
                audience=self._trust.audience,
                issuer=self._trust.issuer,
                # times are compared below, with the fleet's time instead of the library's clock
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            claims = _Claims.model_validate(verified)
        except jwt.InvalidAudienceError:
            return refused("the service account token is for another audience")
        except jwt.InvalidIssuerError:
            return refused("the service account token is another cluster's")
        except (jwt.PyJWTError, ValidationError):
            return refused("the service account token does not verify")
        return self._claims_refusal(claims, now_unix_ms) or claims

    def _claims_refusal(self, claims: _Claims, now_unix_ms: int) -> Refusal | None:
        if now_unix_ms < max(claims.nbf, claims.iat) * 1000:
            return refused("the service account token is not yet valid")
        if now_unix_ms >= claims.exp * 1000:
            return refused("the service account token has expired")
        if claims.exp - claims.iat > LONGEST_LIFE_S:
            return refused("the service account token lives longer than a day")
        who = claims.kubernetes
        account = (who.namespace, who.serviceaccount.name)
        if claims.sub != f"system:serviceaccount:{account[0]}:{account[1]}":
            return refused("the service account token contradicts itself")
        if account not in self._trust.service_accounts:
            return refused("the service account is not admitted")
        return None
