"""The gates by themselves: windows, memory bounds, and one answer for every way to be wrong."""

from pathlib import Path

import pytest

from palyra_fleet.api import callers
from palyra_fleet.api.application import host_name
from palyra_fleet.api.callers import (
    ATTEMPT_WINDOW_MS,
    ATTEMPTS_PER_WINDOW,
    MAX_ADDRESSES,
    FailedAttempts,
    ProofGate,
    SignedRequest,
    TokenGate,
    Who,
)
from palyra_fleet.api.problems import ApiReason, ApiRefusal
from palyra_fleet.principals.book import PrincipalBook, token_sha256
from palyra_fleet.service.fleet_service import Caller
from palyra_fleet.wire.keys import SigningKey, thumbprint_sha256
from palyra_fleet.wire.request_proof import parse_proof, prove

TOKEN = "the-token"


def gate_for(token: str) -> TokenGate:
    return TokenGate(PrincipalBook.open(Path("principals.json"), token_sha256(token)))


def refusal_of(gate: TokenGate, authorization: str | None, now: int = 0) -> ApiRefusal:
    with pytest.raises(ApiRefusal) as refused:
        gate.operator(authorization, "127.0.0.1", now)
    return refused.value


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        TOKEN,
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Bearer Bearer {TOKEN}",
        "Bearer \u00fcber",
        "Bearer \udcff\udcfe",  # bytes that are not UTF-8, as the server hands them on
        "Bearer " + "x" * 8000,
    ],
)
def test_every_wrong_token_gets_the_same_answer(authorization: str | None) -> None:
    refusal = refusal_of(gate_for(TOKEN), authorization)
    assert refusal.reason is ApiReason.TOKEN_REFUSED
    assert refusal.detail == ApiReason.TOKEN_REFUSED.heading


@pytest.mark.parametrize(
    "authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Bearer  {TOKEN} "]
)
def test_the_right_token_is_the_operator(authorization: str) -> None:
    gate = gate_for(TOKEN)
    assert gate.operator(authorization, "127.0.0.1", 0).id == "operator"


def test_an_address_has_its_share_of_attempts_in_a_window_and_again_in_the_next() -> None:
    attempts = FailedAttempts()
    first = [attempts.note("a", 0) for _ in range(ATTEMPTS_PER_WINDOW + 2)]
    assert first == list(range(1, ATTEMPTS_PER_WINDOW + 3))
    assert attempts.note("b", 0) == 1
    assert attempts.note("a", ATTEMPT_WINDOW_MS - 1) == ATTEMPTS_PER_WINDOW + 3
    assert attempts.note("a", ATTEMPT_WINDOW_MS) == 1


def test_a_clock_set_back_locks_nobody_out_for_ever() -> None:
    attempts = FailedAttempts()
    for _ in range(ATTEMPTS_PER_WINDOW + 1):
        attempts.note("a", 10**12)
    assert attempts.note("a", 0) == 1


def test_the_memory_of_addresses_is_bounded() -> None:
    attempts = FailedAttempts()
    for number in range(MAX_ADDRESSES * 3):
        attempts.note(str(number), 0)
    assert len(attempts._counts) == MAX_ADDRESSES


def test_the_gate_shows_neither_token_nor_digest() -> None:
    assert token_sha256(TOKEN) not in repr(gate_for(TOKEN))


def gate_of(*callers: Caller) -> ProofGate:
    by_key = {thumbprint_sha256(caller.public_key): caller for caller in callers}
    return ProofGate(by_key.get)


def knock(gate: ProofGate, key: SigningKey, who: Who) -> ApiReason | None:
    """One signed request for a route of `who`; why it was refused, if it was."""
    request = SignedRequest("GET", "/v1/x", b"")
    proof = parse_proof(prove(key, request.method, request.target, request.body, 0))
    try:
        gate.known_caller(proof, request, who, None, 0)
    except ApiRefusal as refusal:
        return refusal.reason
    return None


def test_a_worker_that_floods_is_told_so_and_shuts_out_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("palyra_fleet.wire.request_proof.MAX_REMEMBERED_NONCES", 4)
    monkeypatch.setitem(callers._MOST_PER_KEY, Who.WORKER, 2)
    flooding, working, proxy = (SigningKey.generate() for _ in range(3))
    gate = gate_of(
        Caller("worker", "w1", flooding.public_key),
        Caller("worker", "w2", working.public_key),
        Caller("proxy", "p1", proxy.public_key),
    )
    # a proxy's routes refuse it, and take no room of the proxies
    tried = [knock(gate, flooding, who) for who in (Who.PROXY, Who.PROXY, Who.PROXY, Who.WORKER)]
    assert tried == [ApiReason.CALLER_NOT_ALLOWED] * 2 + [ApiReason.TOO_MANY_CALLS] * 2
    assert knock(gate, working, Who.WORKER) is None
    assert [knock(gate, proxy, Who.PROXY) for _ in range(4)] == [None] * 4


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("LocalHost:1", "localhost"),
        ("[::1]:1", "::1"),
        ("[::1]", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("a:b", ""),
        ("::1", ""),
        ("a:1:2", ""),
        ("a:\u0661", ""),
        (":", ""),
        ("", ""),
    ],
)
def test_a_host_header_is_a_name_and_at_most_a_port(header: str, name: str) -> None:
    assert host_name(header) == name
