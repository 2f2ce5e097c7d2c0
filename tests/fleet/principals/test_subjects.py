"""Principals bound to an issuer's subject: over the real listener, with a real issuer over TLS."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.api.callers import ATTEMPTS_PER_WINDOW
from palyra_fleet.client import FleetProblem, OperatorClient
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.console.sessions import ConsoleSessions
from palyra_fleet.issuers.keeper import UNREADABLE
from palyra_fleet.issuers.trusted import TrustedIssuer
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.principals.book import (
    Principal,
    PrincipalBook,
    PrincipalFileError,
    PrincipalRefused,
    token_sha256,
)
from palyra_fleet.wire.principal_models import CreatePrincipal, PrincipalToken, Role, Subject
from tests.fakes.log_lines import json_lines
from tests.fakes.raw_http import ask
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fakes.token_issuer import AUDIENCE, SUBJECT, TokenIssuer, served_issuer

LOGGER = "palyra_fleet.api.callers"


@dataclass(frozen=True, slots=True)
class Trusting:
    """A fleet and the issuer it believes."""

    fleet: RealFleet
    issuer: TokenIssuer

    def token(self, **changes: object) -> str:
        return self.issuer.token(now_unix_ms() // 1000, **changes)

    async def bind(self, *roles: Role, name: str = "vera") -> PrincipalToken:
        about = Subject(issuer=self.issuer.url, subject=SUBJECT)
        asked = CreatePrincipal(name=name, roles=roles, subject=about, reason="on call")
        return await self.fleet.operator.create_principal(asked)

    def client(self, token: str) -> OperatorClient:
        return OperatorClient(self.fleet.server.admin_url, token)


@asynccontextmanager
async def trusting(tmp_path: Path) -> AsyncIterator[Trusting]:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with served_issuer(ca.server_context("localhost")) as issuer:
        trusted = TrustedIssuer("corp", issuer.url, AUDIENCE, ca_file=ca.ca_file)
        async with real_fleet(issuers=[trusted]) as fleet:
            yield Trusting(fleet, issuer)


async def test_the_issuers_token_stands_for_the_principal_with_its_roles(tmp_path: Path) -> None:
    async with trusting(tmp_path) as place:
        made = await place.bind(Role.VIEWER)
        assert made.token is None
        async with place.client(place.token(roles=["admin"], groups=["admin"])) as vera:
            me = await vera.who_am_i()
            assert (me.name, me.roles) == ("vera", (Role.VIEWER,))
            with pytest.raises(FleetProblem) as refused:
                await vera.create_principal(
                    CreatePrincipal(name="eve", roles=(Role.ADMIN,), reason="why")
                )
            assert refused.value.reason == "api.role_refused"
        (event,) = [
            one
            for one in await place.fleet.operator.events(0, 1000)
            if one.reason == EventReason.PRINCIPAL_CREATED
        ]
        assert event.detail["issuer"] == place.issuer.url
        assert event.detail["subject"] == SUBJECT


async def test_every_wrong_token_gets_the_answer_of_every_other_and_a_line_for_the_operator(
    tmp_path: Path,
) -> None:
    async with trusting(tmp_path) as place:
        await place.bind(Role.VIEWER)
        other = TokenIssuer(url=place.issuer.url)
        wrong = {
            "subject_unknown": place.token(sub="account-2"),
            "audience_wrong": place.token(aud="other"),
            "expired": place.token(exp=1_000_000_000),
            "signature_wrong": other.token(now_unix_ms() // 1000),
            "issuer_unknown": place.token(iss="https://other.example"),
        }
        answers = []
        with json_lines(LOGGER) as lines:
            for token in ("no-token", *wrong.values()):
                answer = await ask(
                    place.fleet.server.admin_url,
                    "GET",
                    "/v1/whoami",
                    headers={"Authorization": f"Bearer {token}"},
                )
                answers.append((answer.status, answer.body, answer.headers["www-authenticate"]))
        assert answers[0][0] == 401
        assert len(set(answers)) == 1
        assert [line["event.reason"] for line in lines] == list(wrong)
        assert {line["source.ip"] for line in lines} == {"127.0.0.1"}
        written = json.dumps(lines)
        assert all(token not in written for token in wrong.values())
        assert all(part not in written for part in ("account-2", "other.example"))


async def test_refused_tokens_of_one_address_are_few_lines_and_the_last_says_so(
    tmp_path: Path,
) -> None:
    async with trusting(tmp_path) as place:
        with json_lines(LOGGER) as lines:
            for number in range(ATTEMPTS_PER_WINDOW + 5):
                await ask(
                    place.fleet.server.admin_url,
                    "GET",
                    "/v1/whoami",
                    headers={"Authorization": f"Bearer {place.token(sub=f'account-{number}')}"},
                )
        assert len(lines) == ATTEMPTS_PER_WINDOW
        told = ["more from there are not told" in str(line["message"]) for line in lines]
        assert told == [False] * (ATTEMPTS_PER_WINDOW - 1) + [True]


async def test_who_is_revoked_is_unknown_at_once_and_a_subject_is_bound_once(
    tmp_path: Path,
) -> None:
    async with trusting(tmp_path) as place:
        await place.bind(Role.VIEWER)
        with pytest.raises(FleetProblem, match="somebody's already"):
            await place.bind(Role.ADMIN, name="eve")
        with pytest.raises(FleetProblem, match="come from https://localhost"):
            await place.fleet.operator.rotate_principal("vera", "why")
        async with place.client(place.token()) as vera:
            assert (await vera.who_am_i()).name == "vera"
            await place.fleet.operator.revoke_principal("vera", "left")
            with pytest.raises(FleetProblem) as refused:
                await vera.who_am_i()
            assert refused.value.reason == "api.token_refused"


async def test_a_fleet_that_names_no_issuer_believes_no_token_of_one() -> None:
    issuer = TokenIssuer()
    async with real_fleet() as fleet:
        await Trusting(fleet, issuer).bind(Role.ADMIN)
        async with OperatorClient(
            fleet.server.admin_url, issuer.token(now_unix_ms() // 1000)
        ) as client:
            with pytest.raises(FleetProblem) as refused:
                await client.who_am_i()
            assert refused.value.reason == "api.token_refused"


async def test_an_issuer_whose_keys_cannot_be_read_is_an_alarm_and_the_fleet_works(
    tmp_path: Path,
) -> None:
    away = TrustedIssuer("corp", "https://issuer.example", AUDIENCE, tmp_path / "gone.json")
    async with real_fleet(issuers=[away]) as fleet:
        answer = await ask(fleet.server.admin_url, "GET", "/readyz")
        assert answer.status == 200
        assert answer.json["alarms"]["issuer_corp"] == UNREADABLE


async def test_a_session_of_the_console_ends_with_the_token_it_began_with(tmp_path: Path) -> None:
    async with trusting(tmp_path) as place:
        await place.bind(Role.VIEWER)
        token = place.token()
        answer = await ask(
            place.fleet.server.admin_url,
            "POST",
            "/console/v1/auth/login",
            json.dumps({"token": token}).encode(),
            {"Content-Type": "application/json"},
        )
        assert answer.status == 200
        ends = answer.json["expires_at_unix_ms"]
        assert ends <= now_unix_ms() + (600 + 60) * 1000


def test_the_end_of_a_token_ends_its_session_whatever_is_used() -> None:
    known = ConsoleSessions(lambda principal, now: True)
    about = Subject(issuer="https://issuer.example", subject=SUBJECT)
    vera = Principal("vera", frozenset({Role.VIEWER}), None, subject=about)
    secret, session = known.begin(vera, 0, 1000)
    assert session.ends_at_unix_ms() == 1000
    assert known.find(secret, 999) is session
    assert known.find(secret, 1000) is None


def book_of(tmp_path: Path) -> PrincipalBook:
    return PrincipalBook.open(tmp_path / "principals.json", token_sha256("first"))


def bound(name: str, subject: str, expires: int | None = None) -> Principal:
    about = Subject(issuer="https://issuer.example", subject=subject)
    return Principal(name, frozenset({Role.VIEWER}), None, 1, expires, about)


def test_a_binding_is_known_after_a_restart_until_it_is_over_or_revoked(tmp_path: Path) -> None:
    book = book_of(tmp_path)
    vera = bound("vera", "a", expires=1000)
    book.create(vera)
    assert vera.subject is not None
    for known in (book, book_of(tmp_path)):
        assert known.by_subject(vera.subject, 999) == vera
        assert known.by_subject(vera.subject, 1000) is None
        assert known.by_token("None", 0) is None
    with pytest.raises(PrincipalRefused, match="already"):
        book.create(bound("eve", "a"))
    book.revoke("vera")
    assert book.by_subject(vera.subject, 0) is None
    assert book_of(tmp_path).by_subject(vera.subject, 0) is None
    book.create(bound("eve", "a"))


def test_a_file_that_binds_one_subject_twice_or_nobody_stops_the_start(tmp_path: Path) -> None:
    book, file = book_of(tmp_path), tmp_path / "principals.json"
    book.create(bound("vera", "a"))
    good = json.loads(file.read_text())
    (line,) = good["principals"]
    unbound = {name: value for name, value in line.items() if name != "subject"}
    both = {**line, "token_sha256": "0" * 64}
    for lines in ([line, {**line, "name": "eve"}], [unbound], [both]):
        file.write_text(json.dumps({**good, "principals": lines}))
        with pytest.raises(PrincipalFileError):
            book_of(tmp_path)
    with pytest.raises(ValueError, match="a token or a subject"):
        Principal("nobody", frozenset({Role.VIEWER}), None)


def test_a_file_without_bindings_reads_as_it_always_did(tmp_path: Path) -> None:
    book, file = book_of(tmp_path), tmp_path / "principals.json"
    book.create(Principal("olga", frozenset({Role.OPERATOR}), token_sha256("token"), 1))
    (line,) = json.loads(file.read_text())["principals"]
    assert set(line) == {"name", "roles", "token_sha256", "created_at_unix_ms"}
