"""The keys that are kept: rotation, outage, and when what was known is known no longer."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.issuers.keeper import HOLD_MS, UNREADABLE, IssuerKeys, kept_keys
from palyra_fleet.issuers.tokens import NotBelieved, TokenFault, VerifiedSubject
from palyra_fleet.issuers.trusted import TrustedIssuer
from tests.fakes.log_lines import json_lines
from tests.fakes.token_issuer import AUDIENCE, KEYS, SUBJECT, TokenIssuer, served_issuer

NOW_S = 1_800_000_000
LOGGER = "palyra_fleet.issuers.keeper"


def clock_at(now_s: int) -> Callable[[], int]:
    return lambda: now_s * 1000


def fault_of(keys: IssuerKeys, token: str, now_unix_ms: int = NOW_S * 1000) -> TokenFault | None:
    """Why the token is not believed; None if it is."""
    answer = keys.subject_of(token, now_unix_ms)
    return answer.fault if isinstance(answer, NotBelieved) else None


async def until_believed(keys: IssuerKeys, token: str) -> None:
    async with asyncio.timeout(60):
        while fault_of(keys, token) is not None:  # noqa: ASYNC110 (keys tell nobody)
            await asyncio.sleep(0.01)


async def test_a_key_that_replaced_another_is_known_soon_and_the_other_no_longer(
    tmp_path: Path,
) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with served_issuer(ca.server_context("localhost")) as issuer:
        trusted = TrustedIssuer("corp", issuer.url, AUDIENCE, ca_file=ca.ca_file)
        before = issuer.token(NOW_S)
        async with kept_keys([trusted], clock_at(NOW_S), gap_s=0.01) as keys:
            assert keys is not None
            known = keys.subject_of(before, NOW_S * 1000)
            assert isinstance(known, VerifiedSubject)
            assert known.subject.subject == SUBJECT
            issuer.rotate()
            await until_believed(keys, issuer.token(NOW_S))
            assert fault_of(keys, before) is not None


async def test_many_unknown_keys_cause_one_reading_per_gap(tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with served_issuer(ca.server_context("localhost")) as issuer:
        trusted = TrustedIssuer("corp", issuer.url, AUDIENCE, ca_file=ca.ca_file)
        async with kept_keys([trusted], clock_at(NOW_S), gap_s=600.0) as keys:
            assert keys is not None
            for number in range(50):
                stranger = issuer.token(NOW_S, {"kid": f"k{number}"})
                assert fault_of(keys, stranger) is not None
                await asyncio.sleep(0)
            assert issuer.asked.count(KEYS) == 1


async def test_while_an_issuer_is_away_its_keys_hold_an_hour_and_no_longer(tmp_path: Path) -> None:
    issuer, file, now = TokenIssuer(), tmp_path / "jwks.json", NOW_S * 1000
    file.write_text(json.dumps(issuer.key_set()))
    trusted = TrustedIssuer("corp", issuer.url, AUDIENCE, file)
    problems: dict[str, str] = {}
    keys = IssuerKeys([trusted], lambda: now, problems=problems)
    fresh = issuer.token(NOW_S, exp=NOW_S + 3600)
    assert fault_of(keys, fresh, now) is not None  # nothing was read yet
    await keys.read_once(trusted)
    file.unlink()
    with json_lines(LOGGER) as lines:
        await keys.read_once(trusted)
        await keys.read_once(trusted)
        assert len(lines) == 1
        assert problems == {"corp": UNREADABLE}
        assert "cannot be read" in str(lines[0]["message"])
        assert fault_of(keys, fresh, now + HOLD_MS - 1) is None
        assert fault_of(keys, fresh, now + HOLD_MS) is TokenFault.KEYS_UNKNOWN
        assert fault_of(keys, fresh, now - 1) is not None  # read later than now: not known to hold
        file.write_text(json.dumps(issuer.key_set()))
        await keys.read_once(trusted)
        assert "1 keys are known" in str(lines[-1]["message"])
        assert problems == {}
    assert fault_of(keys, fresh, now) is None


@pytest.mark.parametrize(
    "said", [[], [{"kty": "oct", "kid": "a", "k": "AAAA"}], [{"kty": "EC", "kid": "key-1"}]]
)
async def test_an_issuer_that_has_no_usable_key_any_more_is_believed_no_more_at_once(
    said: list[object], tmp_path: Path
) -> None:
    issuer, file, problems = TokenIssuer(), tmp_path / "jwks.json", dict[str, str]()
    file.write_text(json.dumps(issuer.key_set()))
    trusted = TrustedIssuer("corp", issuer.url, AUDIENCE, file)
    keys = IssuerKeys([trusted], clock_at(NOW_S), problems=problems)
    await keys.read_once(trusted)
    assert fault_of(keys, issuer.token(NOW_S)) is None
    file.write_text(json.dumps({"keys": said}))
    await keys.read_once(trusted)
    assert fault_of(keys, issuer.token(NOW_S)) is not None
    assert problems == {"corp": UNREADABLE}


async def test_an_issuer_that_does_not_answer_at_the_start_is_asked_again(tmp_path: Path) -> None:
    issuer, file = TokenIssuer(), tmp_path / "jwks.json"
    trusted = TrustedIssuer("corp", issuer.url, AUDIENCE, file)
    async with kept_keys([trusted], clock_at(NOW_S), gap_s=0.01) as keys:
        assert keys is not None
        token = issuer.token(NOW_S)
        assert fault_of(keys, token) is not None
        file.write_text(json.dumps(issuer.key_set()))
        await until_believed(keys, token)


async def test_without_issuers_there_is_nothing_that_believes() -> None:
    async with kept_keys([]) as keys:
        assert keys is None


async def test_what_is_known_shows_no_address_of_an_issuer(tmp_path: Path) -> None:
    trusted = TrustedIssuer("corp", TokenIssuer().url, AUDIENCE, tmp_path / "jwks.json")
    assert repr(IssuerKeys([trusted], clock_at(NOW_S))) == "IssuerKeys(corp)"
