"""Which signed tokens are believed: one good form, and every way to be wrong with its fault."""

import base64
import hmac
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.issuers.tokens import (
    FAULTS,
    MAX_TOKEN_BYTES,
    NotBelieved,
    TokenFault,
    VerifiedSubject,
    judge,
)
from palyra_fleet.issuers.trusted import TrustedIssuer
from palyra_fleet.wire.key_sets import signing_keys
from palyra_fleet.wire.principal_models import Subject
from tests.fakes.token_issuer import AUDIENCE, SUBJECT, TokenIssuer

NOW_S = 1_800_000_000
ISSUER = TokenIssuer()
TRUSTED = TrustedIssuer("corp", ISSUER.url, AUDIENCE)
HOUR_S = 3600


def judged(
    token: str, now_s: float = NOW_S, trusted: TrustedIssuer = TRUSTED
) -> VerifiedSubject | TokenFault:
    keys = signing_keys(ISSUER.key_set())
    answer = judge(token, [trusted], lambda name, now: keys, int(now_s * 1000))
    return answer.fault if isinstance(answer, NotBelieved) else answer


def fault_of(**changes: Any) -> VerifiedSubject | TokenFault:
    return judged(ISSUER.token(NOW_S, **changes))


def test_a_token_that_the_issuer_signed_for_us_says_whom_it_is_about() -> None:
    about = Subject(issuer=ISSUER.url, subject=SUBJECT)
    good = VerifiedSubject("corp", about, (NOW_S + 600 + TRUSTED.leeway_s) * 1000)
    assert judged(ISSUER.token(NOW_S)) == good
    assert judged(ISSUER.token(NOW_S, aud=["other", AUDIENCE], azp=AUDIENCE)) == good
    assert judged(ISSUER.token(NOW_S, aud=[AUDIENCE, AUDIENCE])) == good
    assert judged(ISSUER.token(NOW_S, azp="another-client")) == good
    assert judged(ISSUER.token(NOW_S, nbf=None)) == good
    for kind in ("JWT", "at+jwt", "application/AT+jwt"):
        assert judged(ISSUER.token(NOW_S, {"typ": kind})) == good


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"iss": "https://issuer.example/team/"}, TokenFault.ISSUER_UNKNOWN),  # byte by byte
        ({"iss": "https://other.example"}, TokenFault.ISSUER_UNKNOWN),
        ({"iss": None}, TokenFault.ISSUER_UNKNOWN),
        ({"iss": [ISSUER.url]}, TokenFault.ISSUER_UNKNOWN),
        ({"aud": "palyra"}, TokenFault.AUDIENCE),
        ({"aud": ["a", "b"]}, TokenFault.AUDIENCE),
        ({"aud": []}, TokenFault.AUDIENCE),
        ({"aud": None}, TokenFault.AUDIENCE),
        ({"aud": ["other", AUDIENCE]}, TokenFault.PARTY),
        ({"aud": ["other", AUDIENCE], "azp": None}, TokenFault.PARTY),
        ({"aud": ["other", AUDIENCE], "azp": "other"}, TokenFault.PARTY),
        ({"aud": ["other", AUDIENCE], "azp": ""}, TokenFault.PARTY),
        ({"aud": ["other", AUDIENCE], "azp": [AUDIENCE]}, TokenFault.CLAIMS),
        ({"exp": None}, TokenFault.CLAIMS),
        ({"iat": None}, TokenFault.CLAIMS),
        ({"sub": None}, TokenFault.CLAIMS),
        ({"sub": ""}, TokenFault.CLAIMS),
        ({"sub": "a\nb"}, TokenFault.CLAIMS),
        ({"sub": "ä"}, TokenFault.CLAIMS),
        ({"sub": "x" * 256}, TokenFault.CLAIMS),
        ({"exp": str(NOW_S + 600)}, TokenFault.CLAIMS),
        ({"exp": float(NOW_S + 600)}, TokenFault.CLAIMS),
        ({"exp": True}, TokenFault.CLAIMS),
        ({"exp": -1}, TokenFault.CLAIMS),
        ({"iat": 2**60}, TokenFault.CLAIMS),
        ({"nbf": NOW_S + 600}, TokenFault.NOT_YET),
        ({"iat": NOW_S + 61, "nbf": None}, TokenFault.NOT_YET),
        ({"exp": NOW_S - 60}, TokenFault.EXPIRED),
        ({"exp": NOW_S, "iat": NOW_S, "nbf": NOW_S}, TokenFault.CLAIMS),  # no time at all
        ({"exp": NOW_S + HOUR_S + 1}, TokenFault.TOO_LONG),
        ({"cnf": {"jkt": "x"}}, TokenFault.BOUND),
    ],
)
def test_a_claim_that_does_not_fit_is_not_believed(
    changes: dict[str, Any], fault: TokenFault
) -> None:
    assert fault_of(**changes) is fault


def test_every_time_has_the_leeway_and_not_a_millisecond_more() -> None:
    token, leeway = ISSUER.token(NOW_S), TRUSTED.leeway_s
    assert isinstance(judged(token, NOW_S - leeway), VerifiedSubject)
    assert judged(token, NOW_S - leeway - 0.001) is TokenFault.NOT_YET
    assert isinstance(judged(token, NOW_S + 600 + leeway - 0.001), VerifiedSubject)
    assert judged(token, NOW_S + 600 + leeway) is TokenFault.EXPIRED
    exact = replace(TRUSTED, leeway_s=0)
    assert judged(token, NOW_S + 600, exact) is TokenFault.EXPIRED
    assert isinstance(judged(ISSUER.token(NOW_S, exp=NOW_S + HOUR_S)), VerifiedSubject)


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"kid": "key-2"}, TokenFault.KEY_UNKNOWN),
        ({"crit": ["exp"]}, TokenFault.NOT_A_TOKEN),  # the library knows no such extension
        ({"crit": []}, TokenFault.NOT_A_TOKEN),
        ({"crit": ["b64"], "b64": True}, TokenFault.NOT_A_TOKEN),
        ({"typ": "logout+jwt"}, TokenFault.TYPE),
        ({"typ": "dpop+jwt"}, TokenFault.TYPE),
        ({"typ": "secevent+jwt"}, TokenFault.TYPE),
    ],
)
def test_a_header_that_asks_for_something_else_is_not_believed(
    headers: dict[str, Any], fault: TokenFault
) -> None:
    assert judged(ISSUER.token(NOW_S, headers)) is fault


def test_a_critical_header_is_refused_even_one_that_the_library_knows() -> None:
    head = _b64(json.dumps({"alg": "RS256", "kid": "key-1", "crit": ["b64"], "b64": True}).encode())
    signed = f"{head}.{_b64(json.dumps(ISSUER.claims(NOW_S)).encode())}"
    sign = jwt.get_algorithm_by_name("RS256").sign
    token = f"{signed}.{_b64(sign(signed.encode(), ISSUER.keys['key-1']))}"
    assert judged(token) is TokenFault.TYPE


def test_no_key_but_the_issuers_own_counts_whatever_the_header_brings() -> None:
    claims, mine = ISSUER.claims(NOW_S), rsa.generate_private_key(65537, 2048)
    jwk = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(mine.public_key()))
    brought = {"kid": "key-1", "jwk": jwk, "jku": "https://mine.example/keys", "x5c": ["x"]}
    assert judged(jwt.encode(claims, mine, "RS256", headers=brought)) is TokenFault.SIGNATURE
    no_kid = jwt.encode(claims, ISSUER.keys["key-1"], "RS256")
    assert judged(no_kid) is TokenFault.KEY_UNKNOWN


def test_the_key_decides_the_algorithm() -> None:
    """`none`, HMAC with the public key as secret, and other algorithms of the same key."""
    claims, head = ISSUER.claims(NOW_S), {"kid": "key-1"}
    key = ISSUER.keys["key-1"]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = [
        jwt.encode(claims, None, "none", headers=head),
        _hmac(claims, public),
        jwt.encode(claims, key, "RS512", headers=head),
        jwt.encode(claims, key, "PS256", headers=head),
        jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers=head),
    ]
    assert [judged(token) for token in confused] == [TokenFault.SIGNATURE] * len(confused)


def test_keys_that_are_not_known_believe_nobody() -> None:
    answer = judge(ISSUER.token(NOW_S), [TRUSTED], lambda name, now: None, NOW_S * 1000)
    assert answer == NotBelieved(TokenFault.KEYS_UNKNOWN, "corp")
    answer = judge(ISSUER.token(NOW_S), [], lambda name, now: {}, NOW_S * 1000)
    assert answer == NotBelieved(TokenFault.ISSUER_UNKNOWN)


def test_one_changed_sign_of_any_part_is_not_believed() -> None:
    parts = ISSUER.token(NOW_S).split(".")
    for at, part in enumerate(parts):
        middle = len(part) // 2
        other = "A" if part[middle] != "A" else "B"
        changed = [*parts]
        changed[at] = part[:middle] + other + part[middle + 1 :]
        assert isinstance(judged(".".join(changed)), TokenFault)


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _hmac(claims: dict[str, Any], secret: bytes) -> str:
    head = _b64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "key-1"}).encode())
    signed = f"{head}.{_b64(json.dumps(claims).encode())}"
    return f"{signed}.{_b64(hmac.digest(secret, signed.encode(), 'sha256'))}"


NOT_TOKENS = [
    "",
    "a",
    "..",
    "a.b",
    "a.b.c.d",
    "ä.b.c",
    "." * MAX_TOKEN_BYTES,
    f"{'a' * MAX_TOKEN_BYTES}.b.c",
    f"{_b64(b'[]')}.{_b64(b'{}')}.AA",
    f"{_b64(b'{}')}.{_b64(b'[]')}.AA",
    f"{_b64(b'[' * 3000)}.{_b64(b'{}')}.AA",
    f"{_b64(json.dumps({'alg': 'RS256'}).encode())}.{_b64(b'{' * 3000)}.AA",
    f"{_b64(json.dumps({'alg': 'RS256'}).encode())}.{_b64(b'[' * 5000)}.AA",
]


@pytest.mark.parametrize("text", NOT_TOKENS)
def test_what_is_no_token_is_told_from_one(text: str) -> None:
    assert judged(text) is TokenFault.NOT_A_TOKEN


@given(st.text(alphabet=st.sampled_from('eyJhbGciOi.-_=AQ{}"\0ä'), max_size=200))
def test_any_text_has_an_answer(text: str) -> None:
    assert isinstance(judged(text), TokenFault)


def test_every_fault_says_what_it_means() -> None:
    assert set(FAULTS) == set(TokenFault)


def test_where_clients_are_named_every_token_must_be_of_one_of_them() -> None:
    named = replace(TRUSTED, authorized_parties=("cli", "portal"))
    for audience in (AUDIENCE, [AUDIENCE], ["other", AUDIENCE]):
        for party in ("cli", "portal"):
            good = judged(ISSUER.token(NOW_S, aud=audience, azp=party), trusted=named)
            assert isinstance(good, VerifiedSubject)
        for stranger in (None, "", "CLI", AUDIENCE, "other"):
            wrong = judged(ISSUER.token(NOW_S, aud=audience, azp=stranger), trusted=named)
            assert wrong is TokenFault.PARTY
