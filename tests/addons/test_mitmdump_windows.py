"""What another script does to ours in a real `mitmdump`, and the moments before it is up and while
it ends: whatever reaches the server was judged before, and stands in the audit log."""

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.addons.running_mitmdump import READY_WITHIN_S, Mitmdump, mitmdump
from tests.fakes.free_port import free_port
from tests.fakes.proxy_harness import basic, read_reply
from tests.fakes.until import until

AT_ONCE = 4
DOING = """\
import asyncio
import pathlib
from mitmproxy import ctx

here = pathlib.Path(__file__).parent

def ours():
    return ctx.master.addons.get("palyra_egress")

def deed():
{deed}

async def wait():
    while not (here / "go").exists():
        await asyncio.sleep(0.01)
    try:
        deed()
        said = "done"
    except Exception as error:
        said = f"{{type(error).__name__}}: {{error}}"
    (here / "said.new").write_text(said)
    (here / "said.new").rename(here / "said")

class Other:
    def running(self):
        self.waits = asyncio.get_running_loop().create_task(wait())

addons = [Other()]
"""
REMOVED = "    ctx.master.addons.remove(ours())\n"
UNLOADED = "    ctx.options.update(scripts=[])\n"  # with its locks
NAMESAKE = "    ctx.master.addons.add(type('Namesake', (), {'name': 'palyra_egress'})())\n"
DEEDS = {
    "removed": REMOVED,
    "replaced": REMOVED + NAMESAKE,
    "all removed": "    ctx.master.addons.chain.clear()\n    ctx.master.addons.lookup.clear()\n",
    "unloaded": UNLOADED,
    "unloaded by a command": "    ctx.master.commands.execute('set scripts')\n",
    "unloaded, and what was locked set": UNLOADED
    + "    ctx.options.update(connection_strategy='eager', rawtcp=True, ignore_hosts=['.*'],\n"
    "        upstream_cert=True, validate_inbound_headers=False, ssl_insecure=True)\n",
}
OPENINGS = {
    "reverse": "reverse:http://127.0.0.1:{upstream}@127.0.0.1:{port}",
    "upstream": "upstream:http://127.0.0.1:{upstream}@127.0.0.1:{port}",
    "socks": "socks5@127.0.0.1:{port}",
    "transparent": "transparent@127.0.0.1:{port}",
}


def script(directory: Path, deed: str) -> tuple[str, str]:
    place = directory / "other"
    place.mkdir()
    (place / "other.py").write_text(DOING.format(deed=deed))
    return "-s", str(place / "other.py")


async def said(directory: Path) -> str:
    """Have it done, and what came of it."""
    place = directory / "other"
    (place / "go").touch()
    await until("the deed", (place / "said").exists)
    return (place / "said").read_text()


async def opens_nothing(running: Mitmdump) -> None:
    for number in range(10):
        try:
            nobody = await running.ask(f"/nobody-{number}", None)
        except OSError:
            continue
        assert nobody is None or nobody.status == 407
    assert running.upstream.received == b""


def judged(directory: Path) -> set[str]:
    """The paths of the requests that were allowed, by the audit log."""
    log = directory / "state" / "audit.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    allowed = (entry["target"] for entry in entries if entry.get("effect") == "allow")
    return {urlsplit(target).path for target in allowed}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
async def test_another_script_that_takes_ours_away_opens_nothing(tmp_path: Path, deed: str):
    async with mitmdump(tmp_path, *script(tmp_path, deed)) as running:
        await running.until_ready()
        assert await said(tmp_path) == "done"
        await opens_nothing(running)
        try:
            allowed = await running.ask("/allowed", basic())
        except OSError:
            allowed = None
        assert allowed is None or allowed.status == 200
        assert running.upstream.heads == ([] if allowed is None else [b"GET /allowed HTTP/1.1"])
        assert allowed is None or "/allowed" in judged(tmp_path)


LOCKED = {
    "a mode by a command": "    ctx.master.commands.execute('set mode socks5')\n",
    "a mode by its option": "    ctx.options.update(mode=['transparent'])\n",
    "a lock by a command": "    ctx.master.commands.execute('set rawtcp true')\n",
    "a lock by its option": "    ctx.options.update(ssl_insecure=True)\n",
}


@pytest.mark.parametrize("deed", LOCKED.values(), ids=LOCKED)
async def test_while_ours_is_there_its_locks_hold(tmp_path: Path, deed: str):
    async with mitmdump(tmp_path, *script(tmp_path, deed)) as running:
        await running.until_ready()
        assert "Palyra" in await said(tmp_path)
        await opens_nothing(running)


@pytest.mark.parametrize("mode", OPENINGS.values(), ids=OPENINGS)
async def test_a_door_that_is_opened_once_ours_is_unloaded_leads_nowhere(tmp_path: Path, mode: str):
    port = free_port()
    place = tmp_path / "other"
    deed = UNLOADED + "    ctx.options.update(mode=['regular', (here / 'mode').read_text()])\n"
    async with mitmdump(tmp_path, *script(tmp_path, deed)) as running:
        (place / "mode").write_text(mode.format(upstream=running.upstream.port, port=port))
        await running.until_ready()
        before = running.upstream.connections
        assert await said(tmp_path) == "done"

        async def is_open() -> asyncio.StreamWriter | None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return None
            return writer

        (await until("the door is open", is_open)).close()
        at_door = replace(running, port=port)
        await opens_nothing(at_door)
        await opens_nothing(running)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /origin HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        reply = await read_reply(reader)
        writer.close()
        assert reply is None or reply.status != 200
        assert running.upstream.connections == before


@asynccontextmanager
async def asking_all_the_while(running: Mitmdump) -> AsyncIterator[list[str]]:
    """Requests of nobody and of a worker in turn, without a pause; gives what was answered 200."""
    answered: list[str] = []
    numbers = itertools.count()

    async def ask() -> None:
        while True:
            number = next(numbers)
            path = f"/{'worker' if number % 2 else 'nobody'}-{number}"
            try:
                reply = await running.ask(path, basic() if number % 2 else None)
            except OSError:
                await asyncio.sleep(0)
                continue
            if reply is not None and reply.status == 200:
                answered.append(path)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask()) for _ in range(AT_ONCE)]
        try:
            yield answered
        finally:
            for task in tasks:
                task.cancel()


async def test_nothing_leaves_unjudged_while_mitmdump_starts(tmp_path: Path):
    async with mitmdump(tmp_path) as running:
        async with asking_all_the_while(running) as answered:
            await until("twenty answers", lambda: len(answered) > 20, READY_WITHIN_S)
        arrived = {head.split()[1].decode() for head in running.upstream.heads}
        assert arrived >= set(answered)
        assert arrived <= judged(tmp_path)
        assert all(path.startswith("/worker-") for path in arrived)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
async def test_nothing_leaves_unjudged_while_mitmdump_ends(tmp_path: Path, by: signal.Signals):
    async with mitmdump(tmp_path) as running:
        await running.until_ready()
        async with asking_all_the_while(running) as answered:
            await until("twenty answers", lambda: len(answered) > 20, READY_WITHIN_S)
            running.process.send_signal(by)
            async with asyncio.timeout(READY_WITHIN_S):
                await running.process.wait()
        arrived = {head.split()[1].decode() for head in running.upstream.heads}
        assert arrived >= set(answered)
        assert arrived <= judged(tmp_path)
        assert all(path.startswith("/worker-") for path in arrived)
