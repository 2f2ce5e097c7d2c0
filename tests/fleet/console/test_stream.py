"""The live stream: what it tells, from where it goes on, and when it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from palyra_fleet.console import stream
from palyra_fleet.console.gate import COOKIE, MAX_STREAMS
from palyra_fleet.console.routes import CONSOLE_ROUTES
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.wire.principal_models import Role
from palyra_fleet.wire.traffic_models import TrafficReport
from tests.fakes.raw_http import open_connection
from tests.fakes.served_fleet import TOKENS, ServedFleet, served_fleet
from tests.fleet.console.test_gate import Browser, sign_in

LOGOUT = next(row for row in CONSOLE_ROUTES if row.path == "/v1/auth/logout")


@pytest.fixture
async def fleet() -> AsyncIterator[ServedFleet]:
    async with served_fleet() as served:
        yield served


@asynccontextmanager
async def listening(browser: Browser, last: str | None = None) -> AsyncIterator["Ear"]:
    reader, writer = await open_connection(browser.fleet.admin_url)
    headers = f"Host: localhost\r\nCookie: {COOKIE}={browser.cookie}\r\n"
    if last is not None:
        headers += f"Last-Event-ID: {last}\r\n"
    writer.write(f"GET /console/events HTTP/1.1\r\n{headers}\r\n".encode())
    try:
        yield Ear(reader, (await reader.readline()).split()[1].decode())
    finally:
        writer.close()


class Ear:
    """Reads a stream as it comes."""

    def __init__(self, reader: asyncio.StreamReader, status: str) -> None:
        self._reader = reader
        self._heard = ""
        self.status = status

    async def hears(self, text: str) -> None:
        async with asyncio.timeout(60):
            while text not in self._heard:
                data = await self._reader.read(4096)
                assert data, f"the stream ended before {text!r}: {self._heard[-500:]}"
                self._heard += data.decode()
        self._heard = self._heard.partition(text)[2]

    async def ends(self) -> None:
        async with asyncio.timeout(60):
            while await self._reader.read(4096):
                pass


async def happens(fleet: ServedFleet, why: str) -> None:
    await fleet.service.record_event(EventReason.HEARTBEAT, "test", {"why": why})


async def test_an_entry_of_the_log_is_told_as_it_comes(fleet: ServedFleet) -> None:
    async with listening(await sign_in(fleet, TOKENS[Role.VIEWER])) as ear:
        await ear.hears("event: here")
        await happens(fleet, "first")
        await ear.hears("id: 1\nevent: entry")


async def test_a_browser_that_was_away_gets_what_it_missed(fleet: ServedFleet) -> None:
    for number in range(3):
        await happens(fleet, str(number))
    async with listening(await sign_in(fleet, TOKENS[Role.VIEWER]), last="1") as ear:
        await ear.hears("id: 2\nevent: entry")
        await ear.hears("id: 3\nevent: entry")


@pytest.mark.parametrize("last", ["", "x", "-1", "9" * 40, "\u0661"])
async def test_a_number_that_is_none_begins_at_the_newest(fleet: ServedFleet, last: str) -> None:
    await happens(fleet, "before")
    browser = await sign_in(fleet, TOKENS[Role.VIEWER])
    async with listening(browser, last=last.encode().decode("latin-1")) as ear:
        await ear.hears("id: 1\nevent: here")


async def test_the_stream_ends_with_the_session(fleet: ServedFleet) -> None:
    browser = await sign_in(fleet, TOKENS[Role.VIEWER])
    async with listening(browser) as ear:
        await ear.hears("event: here")
        assert (await browser.send(LOGOUT)).status == 200
        await ear.hears("event: over")
        await ear.hears("\r\n0\r\n\r\n")  # the last chunk


async def test_streams_of_one_principal_are_few_and_make_room_again(fleet: ServedFleet) -> None:
    browser = await sign_in(fleet, TOKENS[Role.VIEWER])
    other = await sign_in(fleet, TOKENS[Role.ADMIN])
    async with listening(browser) as first:
        await first.hears("event: here")
        open_ears = [listening(browser) for _ in range(MAX_STREAMS - 1)]
        for ear in open_ears:
            assert (await ear.__aenter__()).status == "200"
        async with listening(browser) as refused:
            assert refused.status == "429"
        async with listening(other) as allowed:
            assert allowed.status == "200"
        for ear in open_ears:
            await ear.__aexit__(None, None, None)
    async with asyncio.timeout(60):
        while True:
            async with listening(browser) as again:
                if again.status == "200":
                    break
            await asyncio.sleep(0.05)


async def test_without_a_session_there_is_no_stream(fleet: ServedFleet) -> None:
    async with listening(Browser(fleet, "x", "")) as ear:
        assert ear.status == "401"


async def test_a_stop_does_not_wait_for_open_pages() -> None:
    async with served_fleet() as fleet:
        browser = await sign_in(fleet, TOKENS[Role.VIEWER])
        ear = listening(browser)
        heard = await ear.__aenter__()
        await heard.hears("event: here")
    await heard.ends()
    await ear.__aexit__(None, None, None)


async def test_what_a_proxy_counted_is_told_once_it_changed(
    fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_TRAFFIC_EVERY", 1)
    report = TrafficReport(since_unix_ms=2**52, allowed={"egress.allowed": 1})
    async with listening(await sign_in(fleet, TOKENS[Role.VIEWER])) as ear:
        await ear.hears("event: here")
        async with fleet.as_proxy() as proxy:
            await proxy.report_traffic(report)
        await ear.hears("event: traffic")


async def test_who_waits_for_a_run_is_told_once_it_changed(fleet: ServedFleet) -> None:
    async with listening(await sign_in(fleet, TOKENS[Role.VIEWER])) as ear:
        await ear.hears("event: here")
        fleet.service.workers_waiting = 1
        await ear.hears("event: entry\ndata: {}")
