"""The gates by themselves: windows, memory bounds, and one answer for every way to be wrong."""

import pytest

from palyra_fleet.api.application import host_name
from palyra_fleet.api.callers import (
    ATTEMPT_WINDOW_MS,
    ATTEMPTS_PER_WINDOW,
    MAX_ADDRESSES,
    FailedAttempts,
    TokenGate,
    token_sha256,
)
from palyra_fleet.api.problems import ApiReason, ApiRefusal

TOKEN = "the-token"


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
        "Bearer " + "x" * 8000,
    ],
)
def test_every_wrong_token_gets_the_same_answer(authorization: str | None) -> None:
    refusal = refusal_of(TokenGate(token_sha256(TOKEN)), authorization)
    assert refusal.reason is ApiReason.TOKEN_REFUSED
    assert refusal.detail == ApiReason.TOKEN_REFUSED.heading


@pytest.mark.parametrize(
    "authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Bearer  {TOKEN} "]
)
def test_the_right_token_is_the_operator(authorization: str) -> None:
    gate = TokenGate(token_sha256(TOKEN))
    assert gate.operator(authorization, "127.0.0.1", 0).id == "operator"


def test_an_address_has_its_share_of_attempts_in_a_window_and_again_in_the_next() -> None:
    attempts = FailedAttempts()
    first = [attempts.note("a", 0) for _ in range(ATTEMPTS_PER_WINDOW + 2)]
    assert first == [True] * ATTEMPTS_PER_WINDOW + [False] * 2
    assert attempts.note("b", 0)
    assert not attempts.note("a", ATTEMPT_WINDOW_MS - 1)
    assert attempts.note("a", ATTEMPT_WINDOW_MS)


def test_a_clock_set_back_locks_nobody_out_for_ever() -> None:
    attempts = FailedAttempts()
    for _ in range(ATTEMPTS_PER_WINDOW + 1):
        attempts.note("a", 10**12)
    assert attempts.note("a", 0)


def test_the_memory_of_addresses_is_bounded() -> None:
    attempts = FailedAttempts()
    for number in range(MAX_ADDRESSES * 3):
        attempts.note(str(number), 0)
    assert len(attempts._counts) == MAX_ADDRESSES


def test_the_gate_shows_neither_token_nor_digest() -> None:
    assert token_sha256(TOKEN) not in repr(TokenGate(token_sha256(TOKEN)))


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
