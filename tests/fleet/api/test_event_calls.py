"""The event log over the API: pages that wait, a stream that resumes, their bounds and ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from palyra_fleet.api import event_calls
from palyra_fleet.api.gatekeeper import KEPT_FOR_ADMINS, MAX_LOG_READERS, MAX_LOG_READERS_IN_ALL
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.principals.book import Principal, PrincipalBook, token_sha256
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.principal_models import Role
from tests.fakes.raw_http import RawAnswer, ask, open_connection
from tests.fakes.served_fleet import TOKEN, TOKENS, ServedFleet, served_fleet
from tests.fakes.until import until

PAGE = "/v1/events"
STREAM = "/v1/events/stream"
VIEWER = TOKENS[Role.VIEWER]


class Ear:
    """Reads an answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader, head: str) -> None:
        self._reader = reader
        self._heard = ""
        self.head = head
        self.status = int(head.split()[1])

    async def hears(self, text: str) -> str:
        """Read up to this text; what came before it."""
        async with asyncio.timeout(60):
            while text not in self._heard:
                data = await self._reader.read(65536)
                assert data, f"the stream ended before {text!r}: {self._heard[-500:]}"
                self._heard += data.decode()
        before, _, self._heard = self._heard.partition(text)
        return before

    async def ends(self) -> str:
        """Read to the end of the connection; what came."""
        async with asyncio.timeout(60):
            while data := await self._reader.read(65536):
                self._heard += data.decode()
        return self._heard


@asynccontextmanager
async def listening(
    fleet: ServedFleet, target: str = STREAM, token: str = VIEWER, **headers: str
) -> AsyncIterator[Ear]:
    reader, writer = await open_connection(fleet.admin_url)
    given = {"Host": "localhost", "Authorization": f"Bearer {token}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    writer.write(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode())
    try:
        yield Ear(reader, (await reader.readuntil(b"\r\n\r\n")).decode())
    finally:
        writer.close()


def request_for(target: str) -> bytes:
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {VIEWER}\r\n"
    return f"{head}\r\n".encode()


async def happens(fleet: ServedFleet, why: str) -> None:
    await fleet.service.record_event(EventReason.HEARTBEAT, "test", {"why": why})


async def page(fleet: ServedFleet, query: str, token: str = VIEWER) -> RawAnswer:
    return await ask(
        fleet.admin_url, "GET", f"{PAGE}?{query}", headers={"Authorization": f"Bearer {token}"}
    )


def seqs(answer: RawAnswer) -> list[int]:
    return [item["seq"] for item in answer.json["items"]]


async def waits(fleet: ServedFleet) -> None:
    """Return when somebody waits for the log."""
    await until("somebody waits", lambda: fleet.service.readers > 0)


async def test_a_page_answers_at_once_if_there_is_something_newer(fleet: ServedFleet) -> None:
    for number in range(3):
        await happens(fleet, str(number))
    assert seqs(await page(fleet, "after_seq=1&wait=60")) == [2, 3]


async def test_a_page_that_waits_answers_with_the_next_entry(fleet: ServedFleet) -> None:
    await happens(fleet, "before")
    waiting = spawn(page(fleet, "after_seq=1&wait=60"), "waiting")
    await waits(fleet)
    assert not waiting.done()
    await happens(fleet, "meanwhile")
    assert seqs(await waiting) == [2]


async def test_a_page_that_waited_in_vain_is_empty(fleet: ServedFleet) -> None:
    answer = await page(fleet, "after_seq=0&wait=1")
    assert (answer.status, seqs(answer)) == (200, [])


@pytest.mark.parametrize("target", [f"{PAGE}?after_seq=2", f"{PAGE}?after_seq=2&wait=9", STREAM])
async def test_who_is_ahead_of_the_log_is_told(fleet: ServedFleet, target: str) -> None:
    await happens(fleet, "the only one")
    async with listening(fleet, target, Last_Event_ID="2") as ear:
        assert ear.status == 409
        assert "api.ahead_of_log" in await ear.hears("}")


@pytest.mark.parametrize("last", ["", "x", "-1", "9" * 16, "1.0"])
async def test_a_last_id_that_is_no_number_is_refused(fleet: ServedFleet, last: str) -> None:
    async with listening(fleet, Last_Event_ID=last) as ear:
        assert ear.status == 400


async def test_the_stream_tells_what_was_and_what_comes_in_order(fleet: ServedFleet) -> None:
    await happens(fleet, "before")
    async with listening(fleet) as ear:
        assert "text/event-stream" in ear.head
        await ear.hears("id: 1\nevent: entry\ndata: ")
        entry = json.loads(await ear.hears("\n\n"))
        assert (entry["seq"], entry["detail"]) == (1, {"why": "before"})
        await happens(fleet, "meanwhile")
        await ear.hears("id: 2\nevent: entry\ndata: ")


async def test_a_stream_goes_on_after_the_last_id_without_a_gap_or_a_double(
    fleet: ServedFleet,
) -> None:
    for number in range(event_calls.MAX_ROWS):  # several batches
        await happens(fleet, str(number))
    async with listening(fleet, f"{STREAM}?after_seq=1", Last_Event_ID="17") as ear:
        told = await ear.hears(f"id: {event_calls.MAX_ROWS}\n")
    heard = [int(line[4:]) for line in told.splitlines() if line.startswith("id: ")]
    assert heard == list(range(18, event_calls.MAX_ROWS))


async def test_a_quiet_stream_says_that_it_is_there(
    fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_calls, "LOOK_EVERY_S", 0.01)
    async with listening(fleet) as ear:
        await ear.hears(": still here")
        await ear.hears(": still here")


@pytest.mark.parametrize("target", [f"{PAGE}?wait=60", STREAM])
async def test_one_principal_waits_in_a_few_places_and_leaves_room_to_others(
    fleet: ServedFleet, target: str
) -> None:
    async with AsyncExitStack() as open_ears:
        mine = [
            spawn(open_ears.enter_async_context(listening(fleet, target)), f"ear {number}")
            for number in range(MAX_LOG_READERS)
        ]
        await until("all places taken", lambda: fleet.service.readers == MAX_LOG_READERS)
        async with listening(fleet, target) as refused:
            assert refused.status == 429
            assert "api.too_many_calls" in await refused.hears("}")
        assert seqs(await page(fleet, "")) == []  # who does not wait takes no place
        async with listening(fleet, STREAM, TOKENS[Role.ADMIN]) as other:
            assert other.status == 200
        await happens(fleet, "what all wait for")
        for ear in await asyncio.gather(*mine):
            assert ear.status == 200
    await until("nobody waits", lambda: fleet.service.readers == 0)
    async with listening(fleet, STREAM) as again:
        assert again.status == 200


def many(book: PrincipalBook, role: Role) -> list[str]:
    """The tokens of as many principals as could take every place."""
    named = [f"{role}-{number:02}" for number in range(MAX_LOG_READERS_IN_ALL // MAX_LOG_READERS)]
    tokens = [f"token-of-{name}-0123456789abcdef0123456789" for name in named]
    for name, token in zip(named, tokens, strict=True):
        book.create(Principal(f"p-{name}", frozenset({role}), token_sha256(token)))
    return tokens


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.APPROVER])
async def test_no_number_of_others_keeps_admins_from_the_log(
    fleet: ServedFleet, role: Role
) -> None:
    tokens = many(fleet.principals, role)
    async with AsyncExitStack() as ears:
        for number in range(MAX_LOG_READERS_IN_ALL - KEPT_FOR_ADMINS):
            one = listening(fleet, STREAM, tokens[number % len(tokens)])
            assert (await ears.enter_async_context(one)).status == 200
        for target in (STREAM, f"{PAGE}?wait=60"):
            async with listening(fleet, target, tokens[-1]) as refused:
                assert refused.status == 503
                assert "api.places_taken" in await refused.hears("}")
        for _ in range(MAX_LOG_READERS):
            one = listening(fleet, STREAM, TOKENS[Role.ADMIN])
            assert (await ears.enter_async_context(one)).status == 200
        async with listening(fleet, STREAM, TOKEN) as another:
            assert another.status == 200


async def test_all_principals_together_have_a_bound(fleet: ServedFleet) -> None:
    tokens = many(fleet.principals, Role.ADMIN)
    async with AsyncExitStack() as open_ears:
        for number in range(MAX_LOG_READERS_IN_ALL):
            one = listening(fleet, STREAM, tokens[number % len(tokens)])
            assert (await open_ears.enter_async_context(one)).status == 200
        async with listening(fleet, STREAM, TOKEN) as refused:
            assert refused.status == 503
            assert "api.places_taken" in await refused.hears("}")


async def test_a_token_that_is_revoked_while_it_waits_ends_with_401(fleet: ServedFleet) -> None:
    waiting = spawn(page(fleet, "wait=60"), "waiting")
    await waits(fleet)
    fleet.principals.revoke(f"{Role.VIEWER}-1")
    answer = await waiting
    assert (answer.status, answer.reason) == (401, "api.token_refused")


async def test_a_stream_of_a_revoked_token_says_nothing_more(fleet: ServedFleet) -> None:
    async with listening(fleet) as ear:
        await ear.hears(": here")
        fleet.principals.revoke(f"{Role.VIEWER}-1")
        await happens(fleet, "not for these eyes")
        assert "not for these eyes" not in await ear.hears("event: over")
        await ear.hears("\r\n0\r\n\r\n")  # the last chunk


@pytest.mark.parametrize("target", [f"{PAGE}?wait=60", STREAM])
async def test_a_reader_who_is_gone_holds_no_place(
    fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(event_calls, "LOOK_EVERY_S", 3600.0)  # its going is noticed by itself
    _, writer = await open_connection(fleet.admin_url)
    writer.write(request_for(target))
    await waits(fleet)
    writer.close()
    await until("nobody waits", lambda: fleet.service.readers == 0, within_s=40)


async def test_a_stream_that_nobody_reads_is_cut() -> None:
    async with served_fleet(view_write_within_ms=50) as fleet:
        for _ in range(4_000):
            await happens(fleet, "x" * 4_096)
        reader, writer = await open_connection(fleet.admin_url)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request_for(STREAM))
        await waits(fleet)
        await until("nobody waits", lambda: fleet.service.readers == 0)
        writer.close()


async def test_a_stop_answers_who_waits_and_ends_who_streams() -> None:
    async with AsyncExitStack() as ears:
        async with served_fleet() as fleet:
            streaming = await ears.enter_async_context(listening(fleet))
            await streaming.hears(": here")
            waiting = spawn(page(fleet, "wait=60", TOKENS[Role.ADMIN]), "waiting")
            await until("both wait", lambda: fleet.service.readers == 2)
        answer = await waiting
        assert (answer.status, answer.reason) == (503, "fleet.closed")
        assert "event: over" in await streaming.ends()
