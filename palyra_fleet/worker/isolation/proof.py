"""Proof that a program cannot get around the proxy: the canary is sent in first, and must fail.

It runs in namespaces made exactly as the program's will be. The launcher listens on every kind of
address of this machine meanwhile, TCP and UDP, and hears nothing but what comes through the door.
Any way out, any attempt that was not made, and any doubt is `IsolationUnavailable`: then the
launcher does not say *enforced*, and does not run the program.
"""

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from palyra_fleet.worker.isolation import canary
from palyra_fleet.worker.isolation.door import Door
from palyra_fleet.worker.isolation.namespace import EMPTIED, PROXY_PORT, View
from palyra_fleet.worker.isolation.start import (
    IsolationUnavailable,
    Order,
    homes,
    start_isolated,
)
from palyra_fleet.worker.isolation.streams import STANDARD

PROOF_WITHIN_S: Final = 30.0
MAX_SOCKETS: Final = 512
_CANARY: Final = Path(canary.__file__).resolve()
_LISTENS: Final = "00010000"  # __SO_ACCEPTCON in /proc/net/unix
_DATAGRAMS: Final = "0002"  # SOCK_DGRAM there
_ROUTED_TO: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))

type Asked = dict[str, list[list[str]]]


async def prove_isolation(view: View) -> None:
    """Send the canary in. Raises IsolationUnavailable with every way out it found."""
    async with _listeners() as (addresses, strays), _behind_the_door() as door_address:
        asked = _asked(addresses, view)
        report = await _report_of(view, asked, door_address)
    problems = problems_of(report, asked)
    if strays:
        problems = (*problems, f"the launcher was reached on {', '.join(sorted(strays))}")
    if problems:
        raise IsolationUnavailable(
            "a program could get around the proxy here: " + "; ".join(problems)
        )


def problems_of(report: Mapping[str, str], asked: Asked) -> tuple[str, ...]:
    """What is not proven: attempts that got out, and attempts that are missing. Pure."""
    problems = []
    for name in expected_attempts(asked):
        outcome = report.get(name, "not tried")
        holds = outcome == canary.THROUGH if name == "door" else outcome.startswith(canary.BLOCKED)
        if not holds:
            problems.append(f"{name} ({outcome})")
    return tuple(problems)


def expected_attempts(asked: Asked) -> tuple[str, ...]:
    """The names of the attempts that the canary must report on."""
    return (
        *(f"{kind} {host}" for host, _ in asked["listeners"] for kind in ("tcp", "udp", "icmp")),
        *(f"dns {server}" for (server,) in asked["resolvers"]),
        *(f"socket {path}" for (path,) in asked["sockets"]),
        *(f"pipe {path}" for (path,) in asked["pipes"]),
        *(f"see {path}" for (path,) in asked["hidden"]),
        *(f"write {path}" for (path,) in asked["read_only"]),
        *("vsock", "packet", "io_uring", "key rings", "set-user-ID", "typing", "interfaces"),
        *("privileges", "core dumps", "first process", "kernel settings", "user namespace"),
        *("processes", "door"),
    )


async def _report_of(view: View, asked: Asked, door_address: str) -> Mapping[str, str]:
    arguments = (sys.executable, "-I", str(_CANARY), json.dumps(asked))
    started = await start_isolated(
        view,
        Order(Path(sys.executable), arguments, {}),
        is_canary=True,
    )
    door = Door(started.door, door_address)
    try:
        async with asyncio.timeout(PROOF_WITHIN_S):
            output, errors = await started.process.communicate()
    except TimeoutError:
        raise IsolationUnavailable("the canary did not come back in time") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.process.kill()
        await started.process.wait()
        started.namespace.let_go()
        await door.close()
    try:
        return dict(json.loads(output))
    except (ValueError, TypeError):
        said = errors.decode(errors="replace").strip()[-500:]
        raise IsolationUnavailable(f"the canary failed: {said or 'it said nothing'}") from None


def _asked(addresses: list[list[str]], view: View) -> Asked:
    emptied = [path for path in EMPTIED if path.is_dir() and not path.is_symlink()]
    shown = (*view.writable, *view.readable)
    hidden = [path for path in emptied if not any(one.is_relative_to(path) for one in shown)]
    system = [Path("/"), Path("/etc"), Path("/usr"), *homes()]
    protected = [*system, *view.protected, *view.readable]
    return {
        "listeners": addresses,
        "resolvers": [[server] for server in _resolvers()],
        "sockets": [[path] for path in _unix_sockets()],
        "pipes": [[path] for path in _named_pipes()],
        "hidden": [[str(path)] for path in (*hidden, *view.hidden, *view.unreadable)],
        "read_only": [
            [str(path)]
            for path in dict.fromkeys(protected)
            if path.is_dir() and not _is_writable(path, view)
        ],
        "door": [[str(PROXY_PORT)]],
    }


def _is_writable(path: Path, view: View) -> bool:
    if path in (*view.protected, *view.readable):
        return False
    return any(path.is_relative_to(place) for place in (*view.writable, *EMPTIED, *view.hidden))


def _resolvers() -> list[str]:
    """The machine's name servers, without zone; none where there is no such file."""
    try:
        lines = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines)
    return [word[1].partition("%")[0] for word in words if word[:1] == ["nameserver"] and word[1:]]


def _unix_sockets() -> list[str]:
    """Where programs of this machine listen on a path, or take datagrams."""
    rows = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    split = (row.split(maxsplit=7) for row in rows)
    paths = {
        row[7]
        for row in split
        if len(row) == 8 and (row[3] == _LISTENS or row[4] == _DATAGRAMS) and row[7].startswith("/")
    }
    return _few(paths, "Unix sockets that are open to others")


def _named_pipes() -> list[str]:
    """Which named pipes programs have open, as far as this account may see; not our own streams."""
    own = {_identity(os.fstat(number)) for number in STANDARD}
    paths = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            target = link.readlink()
            if target.is_absolute():
                found = target.stat()
                if stat.S_ISFIFO(found.st_mode) and _identity(found) not in own:
                    paths.add(str(target))
    return _few(paths, "named pipes in use")


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _few(paths: set[str], what: str) -> list[str]:
    if len(paths) > MAX_SOCKETS:
        raise IsolationUnavailable(
            f"this machine has {len(paths)} {what}; at most {MAX_SOCKETS} are tried"
        )
    return sorted(paths)


def _own_addresses() -> list[str]:
    """Loopback, and the addresses that lead out of this machine."""
    found = ["127.0.0.1", "::1"]
    for family, target in _ROUTED_TO:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))  # sends nothing; asks the routing table
            found.append(str(probe.getsockname()[0]))
    return list(dict.fromkeys(found))


class _Hears(asyncio.DatagramProtocol):
    def __init__(self, name: str, strays: set[str]) -> None:
        self._name, self._strays = name, strays

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        del data, addr
        self._strays.add(self._name)


@contextlib.asynccontextmanager
async def _listeners() -> AsyncIterator[tuple[list[list[str]], set[str]]]:
    """Listeners that nobody may reach: their addresses, and who was reached."""
    loop = asyncio.get_running_loop()
    addresses: list[list[str]] = []
    strays: set[str] = set()
    async with contextlib.AsyncExitStack() as open_ones:
        for host in _own_addresses():
            try:
                server = await asyncio.start_server(_stray(f"tcp {host}", strays), host, 0)
            except OSError:  # no such address after all: IPv6 may be off
                continue
            await open_ones.enter_async_context(server)
            port = server.sockets[0].getsockname()[1]
            transport, _ = await loop.create_datagram_endpoint(
                partial(_Hears, f"udp {host}", strays), (host, port)
            )
            open_ones.callback(transport.close)
            addresses.append([host, str(port)])
        yield addresses, strays


def _stray(
    name: str, strays: set[str]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    def reached(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        strays.add(name)
        writer.close()

    return reached


@contextlib.asynccontextmanager
async def _behind_the_door() -> AsyncIterator[str]:
    """Stands for the proxy while the canary is inside: answers what comes through the door."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(13) == b"palyra-canary":
                writer.write(b"palyra-proxy")
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}"
