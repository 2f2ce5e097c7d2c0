"""How many wrong codes anybody gets, with every trick an attacker has."""

import pytest

from palyra_fleet.identity.guess_limits import (
    FORGET_AFTER_MS,
    IN_ALL,
    MAX_SOURCES,
    PER_SOURCE,
    GuessLimiter,
    source_of,
)
from palyra_fleet.identity.records import CodeMethod

NOW = 1_800_000_000_000
DAY_MS = 24 * 60 * 60 * 1000
PIN, QR = CodeMethod.PIN, CodeMethod.QR


def _judged(limiter: GuessLimiter, sources: int, step_ms: int, within_ms: int) -> int:
    """Guesses that were judged of an attacker who tries from fresh addresses at every step."""
    judged = 0
    for count, now in enumerate(range(NOW, NOW + within_ms, step_ms)):
        source = f"source {count % sources}"
        while not limiter.holds_back(source, PIN, now):
            limiter.wrong(source, now)
            judged += 1
    return judged


def test_a_day_of_guessing_from_everywhere_is_bounded() -> None:
    assert _judged(GuessLimiter(), MAX_SOURCES, 1_000, DAY_MS) <= 520


def test_bursts_with_quiet_hours_gain_nothing() -> None:
    limiter, judged = GuessLimiter(), 0
    for now in range(NOW, NOW + DAY_MS, FORGET_AFTER_MS + IN_ALL.longest_ms + 1):
        source = 0
        while not limiter.holds_back(f"{source}", PIN, now):
            limiter.wrong(f"{source}", now)
            judged += 1
            source += 1
    assert judged <= 520


def test_the_life_of_a_default_code_leaves_about_twenty_guesses() -> None:
    assert _judged(GuessLimiter(), MAX_SOURCES, 100, 10 * 60 * 1000) <= 26


def test_one_address_gets_few() -> None:
    assert _judged(GuessLimiter(), 1, 1_000, DAY_MS) <= 40


def test_holding_back_doubles_up_to_a_cap() -> None:
    holds = [PER_SOURCE.hold_ms(wrong) for wrong in range(4, 8)]
    assert holds == [0, 30_000, 60_000, 120_000]
    assert PER_SOURCE.hold_ms(10_000) == PER_SOURCE.longest_ms
    assert IN_ALL.hold_ms(19) == 0
    assert IN_ALL.hold_ms(10_000) == IN_ALL.longest_ms


def test_tokens_are_held_back_per_source_only() -> None:
    limiter = GuessLimiter()
    for number in range(20):
        limiter.wrong(f"{number}", NOW)
    assert limiter.holds_back("fresh", PIN, NOW)
    assert not limiter.holds_back("fresh", QR, NOW)
    for _ in range(5):
        limiter.wrong("noisy", NOW)
    assert limiter.holds_back("noisy", QR, NOW)


def test_memory_of_sources_is_bounded() -> None:
    limiter = GuessLimiter()
    for number in range(MAX_SOURCES + 500):
        limiter.wrong(f"{number}", NOW)
    assert len(limiter._sources) == MAX_SOURCES


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:4711", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::1%5D:1", "2001:db8:1:2::/64"),
        ("ipv6:[::ffff:192.0.2.1]:4711", "192.0.2.1"),  # the same host as over IPv4
        ("ipv6:[fe80::1%25eth0]:1", "fe80::/64"),
        ("unix:/run/socket", "unix:/run/socket"),
        ("", ""),
        ("ipv4:", "ipv4:"),
        ("x" * 500, "x" * 128),
    ],
)
def test_a_peer_counts_by_its_address_and_not_its_port(peer: str, source: str) -> None:
    assert source_of(peer) == source
