"""Sessions of the console: how they begin, last and end."""

from palyra_fleet.console.sessions import (
    IDLE_MS,
    LONGEST_MS,
    MAX_OF_ONE,
    MAX_SESSIONS,
    ConsoleSessions,
)
from palyra_fleet.principals.book import Principal, token_sha256
from palyra_fleet.wire.principal_models import Role


def somebody(name: str = "vera") -> Principal:
    return Principal(name, frozenset({Role.VIEWER}), token_sha256(name))


def sessions() -> ConsoleSessions:
    return ConsoleSessions(lambda principal, now: True)


def test_a_session_lasts_half_an_hour_from_its_last_use() -> None:
    kept = sessions()
    secret, session = kept.begin(somebody(), 0)
    assert kept.find(secret, IDLE_MS - 1) is session
    assert kept.find(secret, 2 * IDLE_MS - 2) is session
    assert kept.find(secret, 3 * IDLE_MS) is None


def test_looking_without_using_does_not_make_a_session_last() -> None:
    kept = sessions()
    secret, session = kept.begin(somebody(), 0)
    assert kept.find(secret, IDLE_MS - 1, uses=False) is session
    assert kept.find(secret, IDLE_MS) is None


def test_a_session_in_use_ends_after_twelve_hours_all_the_same() -> None:
    kept = sessions()
    secret, _ = kept.begin(somebody(), 0)
    for now in range(0, LONGEST_MS, IDLE_MS // 2):
        assert kept.find(secret, now) is not None
    assert kept.find(secret, LONGEST_MS) is None


def test_a_clock_set_back_before_a_session_began_ends_it() -> None:
    kept = sessions()
    secret, _ = kept.begin(somebody(), 1_000)
    assert kept.find(secret, 999) is None
    assert kept.find(secret, 1_001) is None


def test_a_session_ends_with_the_token_behind_it() -> None:
    holding = True
    kept = ConsoleSessions(lambda principal, now: holding)
    secret, _ = kept.begin(somebody(), 0)
    assert kept.find(secret, 1) is not None
    holding = False
    assert kept.find(secret, 2) is None
    holding = True
    assert kept.find(secret, 3) is None


def test_signing_out_ends_one_session_and_no_other() -> None:
    kept = sessions()
    first, _ = kept.begin(somebody(), 0)
    second, _ = kept.begin(somebody(), 0)
    kept.end(first)
    kept.end(None)
    kept.end("never was one")
    assert kept.find(first, 1) is None
    assert kept.find(second, 1) is not None


def test_a_stop_signs_everybody_out() -> None:
    kept = sessions()
    secrets = [kept.begin(somebody(name), 0)[0] for name in ("vera", "olaf")]
    kept.end_all()
    assert [kept.find(secret, 1) for secret in secrets] == [None, None]


def test_every_sign_in_has_secrets_of_its_own() -> None:
    kept = sessions()
    made = [kept.begin(somebody(), 0) for _ in range(4)]
    secrets = {secret for secret, _ in made} | {session.csrf_token for _, session in made}
    assert len(secrets) == 8
    assert not any(one in repr(kept) + repr(made[0][1]) for one in secrets)


def test_the_number_of_sessions_is_bounded_and_the_oldest_makes_room() -> None:
    kept = sessions()
    own = [kept.begin(somebody(), n)[0] for n in range(MAX_OF_ONE + 1)]
    assert kept.find(own[0], MAX_SESSIONS) is None
    assert all(kept.find(secret, MAX_SESSIONS) for secret in own[1:])
    many = [kept.begin(somebody(f"p{n}"), n)[0] for n in range(MAX_SESSIONS)]
    assert kept.find(own[1], MAX_SESSIONS) is None
    assert kept.find(many[-1], MAX_SESSIONS) is not None


def test_only_the_sessions_own_token_allows_a_change() -> None:
    _, session = sessions().begin(somebody(), 0)
    assert session.allows(session.csrf_token)
    for other in (None, "", session.csrf_token[:-1], session.csrf_token + "x", "ü\udcff"):
        assert not session.allows(other)
