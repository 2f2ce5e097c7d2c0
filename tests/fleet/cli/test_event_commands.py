"""Who follows the event log gets every entry once, whatever happens to the fleet meanwhile."""

import asyncio

import pytest

from tests.fakes.raw_http import open_connection
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
