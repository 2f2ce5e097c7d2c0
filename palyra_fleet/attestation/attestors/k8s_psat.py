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
from typing import Annotated, Final

import jwt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from palyra_fleet.attestation.attestor import (
    OpenedEvidence,
    TrustedKeys,
    open_own_word,
    refused,
)
from palyra_fleet.refusals import Refusal
from palyra_fleet.wire.backing import ServiceAccountBacking
from palyra_fleet.wire.key_sets import VerifyingKey
from palyra_fleet.wire.models import RegisterRequest

LONGEST_LIFE_S: Final = 24 * 3600
_Text = Annotated[str, StringConstraints(min_length=1, max_length=253)]
_Uid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Seconds = Annotated[int, Field(ge=0, le=2**43)]


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
        opened = open_own_word(request, self.kind, identity, claims.exp * 1000)
        if isinstance(opened, Refusal):
            return opened
        return replace(opened, credential_issued_at_unix_ms=claims.iat * 1000)

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
