"""Who loses a role, a token or the time while a stream or a poll is open hears nothing more.

What an operator does to a principal is an entry of the log, and ends its readers at once; what only
time ends is looked at every second. Over the real listener, with a real issuer over TLS.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.api import event_calls
from palyra_fleet.api.event_stream import LOOK_EVERY_S
from palyra_fleet.console import stream
from palyra_fleet.console.gate import COOKIE
from palyra_fleet.issuers.trusted import TrustedIssuer
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.wire.principal_models import CreatePrincipal, Role, Subject
from palyra_fleet.worker.timekeeper import LoopTime
from tests.fakes.raw_http import open_connection
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fakes.token_issuer import AUDIENCE, SUBJECT, TokenIssuer, served_issuer

NOT_FOR_THEM = "not for these eyes"
NEVER_S = 3600.0
HOUR_MS = 3_600_000


class Ahead(LoopTime):
    """The real time, and as much more as a test wants."""

    ahead_ms = 0

    def wall_unix_ms(self) -> int:
        return super().wall_unix_ms() + self.ahead_ms


@dataclass(frozen=True, slots=True)
class Place:
    fleet: RealFleet
    issuer: TokenIssuer
    time: Ahead

    async def bind(self, *roles: Role) -> str:
        """Vera, as the issuer's subject; a token of hers."""
        about = Subject(issuer=self.issuer.url, subject=SUBJECT)
        asked = CreatePrincipal(name="vera", roles=roles, subject=about, reason="on call")
        await self.fleet.operator.create_principal(asked)
        return self.issuer.token(self.time.wall_unix_ms() // 1000)

    async def make(self, ttl_ms: int | None = None) -> str:
        """Vera, with a token of ours."""
        asked = CreatePrincipal(name="vera", roles=(Role.VIEWER,), ttl_ms=ttl_ms, reason="new")
        made = await self.fleet.operator.create_principal(asked)
        assert made.token is not None
        return made.token


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    ca, time = UpstreamCa.create(tmp_path / "ca"), Ahead()
    async with served_issuer(ca.server_context("localhost")) as issuer:
        trusted = TrustedIssuer("corp", issuer.url, AUDIENCE, ca_file=ca.ca_file)
        async with real_fleet(issuers=[trusted], time=time) as fleet:
            yield Place(fleet, issuer, time)


async def revoked(place: Place) -> None:
    await place.fleet.operator.revoke_principal("vera", "left")


async def given_another_role(place: Place) -> None:
    await revoked(place)
    await place.bind(Role.OPERATOR)


async def token_replaced(place: Place) -> None:
    await place.fleet.operator.rotate_principal("vera", "mailed")


async def an_hour_later(place: Place) -> None:
    place.time.ahead_ms += HOUR_MS


type Loses = Callable[[Place], Awaitable[None]]
type Gets = Callable[[Place], Awaitable[str]]

BY_A_COMMAND: list[tuple[Gets, Loses]] = [
    (lambda place: place.make(), revoked),
    (lambda place: place.make(), token_replaced),
    (lambda place: place.bind(Role.VIEWER), revoked),
    (lambda place: place.bind(Role.VIEWER, Role.APPROVER), given_another_role),
]
BY_TIME: list[tuple[Gets, Loses]] = [
    (lambda place: place.make(ttl_ms=60_000), an_hour_later),
    (lambda place: place.bind(Role.VIEWER), an_hour_later),
]


@asynccontextmanager
async def asking(
    place: Place, target: str, headers: dict[str, str]
) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await open_connection(place.fleet.server.admin_url)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()


async def cookie_of(place: Place, token: str) -> str:
    login = f"{place.fleet.server.admin_url}/console/v1/auth/login"
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser,
        browser.post(login, json={"token": token}) as answer,
    ):
        assert answer.status == 200
        return f"{COOKIE}={answer.cookies[COOKIE].value}"


async def happens(place: Place) -> None:
    await place.fleet.service.record_event(EventReason.HEARTBEAT, "test", {"why": NOT_FOR_THEM})


async def nothing_more_is_heard(place: Place, loses: Loses, way: str, token: str) -> None:
    """Open, lose, and read to the end of the stream, or of the answer."""
    seq = place.fleet.service.last_event_seq
    bearer = {"Authorization": f"Bearer {token}"}
    if way == "poll":
        target, headers = f"/v1/events?after_seq={seq}&wait=60", bearer
    elif way == "stream":
        target, headers = f"/v1/events/stream?after_seq={seq}", bearer
    else:
        target, headers = "/console/events", {"Cookie": await cookie_of(place, token)}
    async with asking(place, target, headers) as reader, asyncio.timeout(60):
        if way != "poll":
            await reader.readuntil(b"here\n")
        else:
            await place.fleet.service.log_goes_beyond(seq, 0.05)
        await loses(place)
        if loses is not an_hour_later:
            await happens(place)
        end = b"api.token_refused" if way == "poll" else b"event: over"
        heard = (await reader.readuntil(end)).decode()
        assert NOT_FOR_THEM not in heard
        if way == "poll":
            assert heard.startswith("HTTP/1.1 401 ")
        else:
            assert "principal_revoked" not in heard
            await reader.readuntil(b"\r\n0\r\n\r\n")  # the last chunk


@pytest.mark.parametrize("way", ["stream", "poll", "console"])
@pytest.mark.parametrize(("gets", "loses"), BY_A_COMMAND)
async def test_what_is_done_to_a_principal_ends_its_readers_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, gets: Gets, loses: Loses, way: str
) -> None:
    monkeypatch.setattr(event_calls, "LOOK_EVERY_S", NEVER_S)
    monkeypatch.setattr(stream, "_LOOK_EVERY_S", NEVER_S)
    await nothing_more_is_heard(place, loses, way, await gets(place))


@pytest.mark.parametrize("way", ["stream", "poll", "console"])
@pytest.mark.parametrize(("gets", "loses"), BY_TIME)
async def test_what_time_ends_is_noticed_though_nothing_happens(
    place: Place, gets: Gets, loses: Loses, way: str
) -> None:
    assert LOOK_EVERY_S <= 1.0
    await nothing_more_is_heard(place, loses, way, await gets(place))
