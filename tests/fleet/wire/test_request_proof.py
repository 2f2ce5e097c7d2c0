"""Proof of possession: of this key, for this very request, now, and once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.request_proof import (
    WINDOW_MS,
    ProofRefused,
    ProofsExhausted,
    ProofVerifier,
    parse_proof,
    prove,
)

KEY = SigningKey.generate()
NOW = 1_800_000_000_000
PROOF = prove(KEY, "POST", "/v1/x?a=1", b"body", NOW)


def verify(
    proof: str = PROOF,
    *,
    key: bytes = KEY.public_key,
    method: str = "POST",
    target: str = "/v1/x?a=1",
    body: bytes = b"body",
    now: int = NOW,
    verifier: ProofVerifier | None = None,
) -> None:
    (verifier or ProofVerifier()).verify(parse_proof(proof), key, method, target, body, now)


def test_a_proof_of_exactly_this_request_is_believed() -> None:
    verify()


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"target": "/v1/x"},
        {"target": "/v1/x?a=2"},
        {"body": b"body "},
        {"body": b""},
        {"key": SigningKey.generate().public_key},
        {"key": b""},
        {"now": NOW + WINDOW_MS + 1},
        {"now": NOW - WINDOW_MS - 1},
    ],
    ids=str,
)
def test_a_proof_of_anything_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProofRefused):
        verify(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("drift", [-WINDOW_MS, -1, 0, 1, WINDOW_MS])
def test_clocks_may_differ_by_the_window_and_no_more(drift: int) -> None:
    verify(now=NOW + drift)


@pytest.mark.parametrize("drift", [-WINDOW_MS, 0, WINDOW_MS])
def test_a_proof_is_believed_once_for_as_long_as_its_time_is(drift: int) -> None:
    verifier = ProofVerifier()
    verify(verifier=verifier, now=NOW + drift)
    for later in (drift, WINDOW_MS):
        with pytest.raises(ProofRefused, match="used before"):
            verify(verifier=verifier, now=NOW + later)


def test_a_refused_proof_spends_nothing() -> None:
    verifier = ProofVerifier()
    with pytest.raises(ProofRefused):
        verify(verifier=verifier, body=b"other")
    verify(verifier=verifier)


def test_no_two_proofs_of_one_request_are_the_same() -> None:
    assert len({prove(KEY, "GET", "/", b"", NOW) for _ in range(50)}) == 50


def test_a_caller_that_floods_shuts_out_itself_and_nobody_else() -> None:
    verifier, other = ProofVerifier(most_per_key=3), SigningKey.generate()
    for _ in range(3):
        verify(prove(KEY, "POST", "/v1/x?a=1", b"body", NOW), verifier=verifier)
    with pytest.raises(ProofsExhausted):
        verify(prove(KEY, "POST", "/v1/x?a=1", b"body", NOW), verifier=verifier)
    proof = prove(other, "POST", "/v1/x?a=1", b"body", NOW)
    verify(proof, key=other.public_key, verifier=verifier)


def test_room_comes_back_when_the_window_has_passed() -> None:
    verifier = ProofVerifier(most_per_key=2)
    for later in (0, WINDOW_MS + 1, 2 * WINDOW_MS + 2):
        now = NOW + later
        for _ in range(2):
            verify(prove(KEY, "POST", "/v1/x?a=1", b"body", now), now=now, verifier=verifier)
        with pytest.raises(ProofsExhausted):
            verify(prove(KEY, "POST", "/v1/x?a=1", b"body", now), now=now, verifier=verifier)
    assert len(verifier._seen) == sum(verifier._per_key.values()) == 2


def test_a_forged_proof_takes_no_room_of_the_key_it_names() -> None:
    verifier = ProofVerifier(most_per_key=1)
    forged = prove(SigningKey.generate(), "POST", "/v1/x?a=1", b"body", NOW)
    with pytest.raises(ProofRefused):
        verify(f"v1 {KEY.thumbprint}{forged[67:]}", verifier=verifier)
    verify(verifier=verifier)


MALFORMED = [
    None,
    "",
    "v1",
    "v2" + PROOF[2:],
    PROOF + " ",
    " " + PROOF,
    PROOF + "\n",
    PROOF.upper(),
    PROOF.replace(";", ","),
    PROOF[:-4] + "!!!!",
    PROOF[:-1],
    f"{PROOF}, {PROOF}",
    PROOF.replace(str(NOW), "-1"),
    PROOF.replace(str(NOW), "9" * 16),
]


@pytest.mark.parametrize("header", MALFORMED)
def test_a_header_of_another_form_is_refused(header: str | None) -> None:
    with pytest.raises(ProofRefused):
        verify(header)  # type: ignore[arg-type]


@given(header=st.text(max_size=300))
def test_no_text_makes_the_parser_do_anything_but_refuse(header: str) -> None:
    with pytest.raises(ProofRefused):
        parse_proof(header)
