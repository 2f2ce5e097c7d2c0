"""Whether a signed token (JWT) of an OpenID Connect issuer is believed, and about whom.

`judge` gives a `VerifiedSubject` or one `TokenFault`, and never anything in between. The issuer is
looked up by its exact address, the key by `kid` among that issuer's keys, and the key decides the
algorithm. Nothing in a token's header names a key or an address that would be used, a critical
header is refused, and so is a token that is bound to a key of its holder (`cnf`), since nobody here
asks for that proof. A token for several audiences must say that it was made for a client of ours
(`azp`): whoever else it is for could bring it here. Every time in it is compared with `now`, with
the issuer's leeway; who it is about is for the principals' book to say. A token is a bearer secret:
nothing of it is in a fault.
Times: Unix ms outside, Unix seconds in claims. Pure.
Source: RFC 7519, RFC 8725 (best practices), RFC 9068 (types), OpenID Connect Core 1.0, sections 2
and 3.1.3.7.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palyra_fleet.issuers.trusted import TrustedIssuer
from palyra_fleet.wire.key_sets import VerifyingKey
from palyra_fleet.wire.principal_models import Subject, SubjectText

MAX_TOKEN_BYTES: Final = 8000
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_Seconds = Annotated[int, Field(ge=0, le=2**43)]

type KeysOf = Callable[[str, int], Mapping[str, VerifyingKey] | None]
"""The keys of an issuer, by its name and now; None where they are not known."""


class TokenFault(StrEnum):
    """Why a token is not believed. For the operator's log; the caller is never told."""

    NOT_A_TOKEN = "token_malformed"  # noqa: S105 (a reason)
    TYPE = "token_type"
    ISSUER_UNKNOWN = "issuer_unknown"
    KEYS_UNKNOWN = "issuer_keys_unavailable"
    KEY_UNKNOWN = "key_unknown"
    SIGNATURE = "signature_wrong"
    AUDIENCE = "audience_wrong"
    PARTY = "authorized_party_wrong"
    CLAIMS = "claims_unusable"
    NOT_YET = "not_yet_valid"
    EXPIRED = "expired"
    TOO_LONG = "lives_too_long"
    BOUND = "bound_to_a_key"
    SUBJECT_UNKNOWN = "subject_unknown"


FAULTS: Final[Mapping[TokenFault, str]] = MappingProxyType(
    {
        TokenFault.NOT_A_TOKEN: "it is not a signed token",
        TokenFault.TYPE: "its header asks for something that is not done here",
        TokenFault.ISSUER_UNKNOWN: "no [issuers.NAME] of the settings has its issuer",
        TokenFault.KEYS_UNKNOWN: "the issuer's keys are not known; a line before says why",
        TokenFault.KEY_UNKNOWN: "the issuer has no such key; its keys are being read again",
        TokenFault.SIGNATURE: "its signature is not that of the key it names",
        TokenFault.AUDIENCE: "it is for another audience; compare `audience` with the issuer's",
        TokenFault.PARTY: "another client asked for it; compare its azp with `authorized_parties`",
        TokenFault.CLAIMS: "it lacks exp, iat or sub, or one of them has no usable form",
        TokenFault.NOT_YET: "it is not valid yet; compare the clocks",
        TokenFault.EXPIRED: "it has expired",
        TokenFault.TOO_LONG: "it lives longer than `longest_life_s`",
        TokenFault.BOUND: "it is bound to a key of its holder, which is not asked for here",
        TokenFault.SUBJECT_UNKNOWN: "no principal is bound to its issuer and subject",
    }
)
"""What each means to an operator."""


@dataclass(frozen=True, slots=True)
class VerifiedSubject:
    """Whom a believed token is about, and until when it holds."""

    issuer_name: str
    subject: Subject
    until_unix_ms: int


@dataclass(frozen=True, slots=True)
class NotBelieved:
    """`issuer_name` is empty where the token's issuer is none of ours."""

    fault: TokenFault
    issuer_name: str = ""


class _Claims(BaseModel):
    """The claims that are used. `nbf` may be absent, as in ID tokens."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    exp: _Seconds
    iat: _Seconds
    nbf: _Seconds | None = None
    sub: SubjectText
    aud: str | list[str]
    azp: str | None = None
    cnf: object = None

    @property
    def is_for_others_too(self) -> bool:
        return isinstance(self.aud, list) and len(set(self.aud)) > 1


def has_form(token: str) -> bool:
    """Whether this is written as a signed token is: three parts with dots between."""
    return token.count(".") == 2 and len(token) <= MAX_TOKEN_BYTES and token.isascii()


def judge(
    token: str, issuers: Sequence[TrustedIssuer], keys_of: KeysOf, now_unix_ms: int
) -> VerifiedSubject | NotBelieved:
    """Total: any text gives one or the other."""
    if not has_form(token):
        return NotBelieved(TokenFault.NOT_A_TOKEN)
    try:
        header = jwt.get_unverified_header(token)
        unverified_claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):  # nothing of it is verified yet
        return NotBelieved(TokenFault.NOT_A_TOKEN)
    unverified_issuer = unverified_claims.get("iss")
    issuer = next((one for one in issuers if one.url == unverified_issuer), None)
    if issuer is None:
        return NotBelieved(TokenFault.ISSUER_UNKNOWN)
    verified = _verified(token, header, issuer, keys_of(issuer.name, now_unix_ms))
    if isinstance(verified, TokenFault):
        return NotBelieved(verified, issuer.name)
    fault = _fault(verified, issuer, now_unix_ms)
    if fault is not None:
        return NotBelieved(fault, issuer.name)
    about = Subject(issuer=issuer.url, subject=verified.sub)
    return VerifiedSubject(issuer.name, about, (verified.exp + issuer.leeway_s) * 1000)


def _verified(
    token: str,
    header: Mapping[str, Any],
    issuer: TrustedIssuer,
    keys: Mapping[str, VerifyingKey] | None,
) -> _Claims | TokenFault:
    """What the token says, if it is signed by this issuer for us."""
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES or "crit" in header:
        return TokenFault.TYPE
    if keys is None:
        return TokenFault.KEYS_UNKNOWN
    kid = header.get("kid")
    known = keys.get(kid) if isinstance(kid, str) else None
    if known is None:
        return TokenFault.KEY_UNKNOWN
    try:
        return _Claims.model_validate(
            jwt.decode(
                token,
                known.key,
                algorithms=[known.algorithm],
                audience=issuer.audience,
                issuer=issuer.url,
                # times are compared below, with the fleet's time instead of the library's clock
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        )
    except jwt.InvalidAudienceError:
        return TokenFault.AUDIENCE
    except jwt.MissingRequiredClaimError as error:
        return TokenFault.AUDIENCE if error.claim == "aud" else TokenFault.CLAIMS
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
        return TokenFault.SIGNATURE
    except (jwt.PyJWTError, ValidationError, ValueError):
        return TokenFault.CLAIMS


def _fault(claims: _Claims, issuer: TrustedIssuer, now_unix_ms: int) -> TokenFault | None:
    leeway_ms = issuer.leeway_s * 1000
    begins_s = claims.iat if claims.nbf is None else max(claims.iat, claims.nbf)
    if not _asked_for_by_one_of_ours(claims, issuer):
        return TokenFault.PARTY
    if claims.cnf is not None:
        return TokenFault.BOUND
    if now_unix_ms >= claims.exp * 1000 + leeway_ms:
        return TokenFault.EXPIRED
    if now_unix_ms < begins_s * 1000 - leeway_ms:
        return TokenFault.NOT_YET
    if not begins_s < claims.exp:
        return TokenFault.CLAIMS
    if claims.exp - claims.iat > issuer.longest_life_s:
        return TokenFault.TOO_LONG
    return None


def _asked_for_by_one_of_ours(claims: _Claims, issuer: TrustedIssuer) -> bool:
    """Whether the client that the token was made for (`azp`) is one that counts. A token for
    several audiences must name it; where the settings name clients, every token must."""
    if issuer.authorized_parties:
        return claims.azp in issuer.authorized_parties
    return not claims.is_for_others_too or claims.azp == issuer.audience
