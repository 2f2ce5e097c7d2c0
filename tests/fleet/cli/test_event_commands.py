"""Who follows the event log gets every entry once, whatever happens to the fleet meanwhile."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from palyra_fleet.cli.event_commands import tail_events
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.tasks import spawn
from tests.fakes.raw_http import open_connection
from tests.fakes.served_fleet import ServedFleet, served_fleet
from tests.fakes.until import until
from tests.fleet.cli.conftest import Shell, running


async def hears(stream: asyncio.StreamReader | None, text: str) -> list[str]:
    """The lines up to one with this text."""
    assert stream is not None
    heard: list[str] = []
    async with asyncio.timeout(120):
        while not heard or text not in heard[-1]:
            line = await stream.readline()
            assert line, f"it ended before {text!r}: {heard}"
            heard.append(line.decode().rstrip())
    return heard


async def happens(shell: Shell, name: str) -> None:
    said = await shell("principal", "create", name, "--role", "viewer", "--reason", "an entry")
    assert said.code == 0, said.err


@pytest.mark.e2e
async def test_tail_goes_on_where_it_was_once_the_fleet_is_back(shell: Shell) -> None:
    async with running(shell):
        await happens(shell, "anna")
        tail = await shell.start("event", "tail", "--follow", "-o", "json")
        told = await hears(tail.stdout, "fleet.principal_created")
        await happens(shell, "bert")
        told += await hears(tail.stdout, "fleet.principal_created")
    said = await hears(tail.stderr, "the fleet is away")
    assert "once it is back" in said[-1]
    await hears(tail.stderr, "not served here")  # what it waits for is told
    async with running(shell):
        await hears(tail.stderr, "the fleet is back")
        await happens(shell, "carl")
        told += await hears(tail.stdout, "fleet.principal_created")
        numbers = [int(line.split(":")[1].strip(" ,")) for line in told if '"seq"' in line]
        assert numbers == list(range(1, len(numbers) + 1))
        tail.terminate()
        await tail.wait()


@pytest.mark.e2e
async def test_tail_ends_when_its_token_is_taken_back(shell: Shell) -> None:
    async with running(shell):
        made = await shell("principal", "create", "vera", "--role", "viewer", "--reason", "watches")
        (shell.home / "vera.token").write_text(made.out)
        (shell.home / "vera.token").chmod(0o600)
        token = ("--token-file", str(shell.home / "vera.token"))
        tail = await shell.start("event", "tail", "--follow", *token)
        await hears(tail.stdout, "fleet.principal_created")
        assert (await shell("principal", "revoke", "vera", "--reason", "left")).code == 0
        _, err = await tail.communicate()
        assert tail.returncode == 2, err.decode()
        assert "api.token_refused" in err.decode()


async def stream_after(
    shell: Shell, last: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await open_connection((shell.home / "admin.url").read_text().strip())
    token = (shell.home / "operator.token").read_text().strip()
    writer.write(
        f"GET /v1/events/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Last-Event-ID: {last}\r\n\r\n".encode()
    )
    return reader, writer


@pytest.mark.e2e
async def test_a_stream_resumes_over_a_restart_without_a_gap_or_a_double(shell: Shell) -> None:
    async with running(shell):
        await happens(shell, "anna")
        reader, writer = await stream_after(shell, 0)
        told = await hears(reader, '"principal":"anna"')
    told += await hears(reader, "event: over")
    writer.close()
    ids = [int(line[4:]) for line in told if line.startswith("id: ")]
    async with running(shell):
        await happens(shell, "bert")
        reader, writer = await stream_after(shell, ids[-1])
        told = await hears(reader, '"principal":"bert"')
        ids += [int(line[4:]) for line in told if line.startswith("id: ")]
        writer.close()
    assert ids == list(range(1, len(ids) + 1))


class Screen:
    """What the command wrote so far."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self.text = ""

    def shows(self, text: str) -> bool:
        told = self._captured.readouterr()
        self.text += told.out + told.err
        return text in self.text


@asynccontextmanager
async def tailing(
    captured: pytest.CaptureFixture[str],
) -> AsyncIterator[tuple[ServedFleet, Screen]]:
    """A fleet with one entry in its log, and somebody who has seen it and follows."""
    async with served_fleet() as fleet, fleet.as_operator() as client:
        await fleet.service.record_event(EventReason.HEARTBEAT, "test", {"why": "the first"})
        asked = Namespace(after_seq=0, lines=9, output="json", follow=True, url=fleet.admin_url)
        tail = spawn(tail_events(asked, client), "tail")
        screen = Screen(captured)
        await until("the first is shown", lambda: screen.shows("the first"))
        try:
            yield fleet, screen
        finally:
            tail.cancel()
            await asyncio.wait([tail])


async def test_an_entry_that_became_another_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with tailing(capsys) as (fleet, screen):
        fleet.service.log[0] = fleet.service.log[0].model_copy(update={"sha256": "f" * 64})
        await fleet.service.record_event(EventReason.HEARTBEAT, "test", {"why": "the second"})
        await until("the second is shown", lambda: screen.shows("the second"))
        assert "entry 1 is another one by now" in screen.text


async def test_entries_that_are_not_there_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with tailing(capsys) as (fleet, screen):
        first = fleet.service.log[0]
        fleet.service.log.append(first.model_copy(update={"seq": 9, "reason": "the.ninth"}))
        fleet.service._log_end.grown_by(8)
        await until("the ninth is shown", lambda: screen.shows("the.ninth"))
        assert "entries 2 to 8 are not here" in screen.text


async def test_nothing_is_told_where_one_follows_the_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with tailing(capsys) as (fleet, screen):
        await fleet.service.record_event(EventReason.HEARTBEAT, "test", {"why": "the second"})
        await until("the second is shown", lambda: screen.shows("the second"))
        assert "entr" not in screen.text
