"""Where the fleet listens: answered, ready, and on loopback where it must be.

Listening sockets are read from the kernel's table, so that one which is open to other machines is
seen whatever a file says. Source: `proc(5)`, /proc/net/tcp.
"""

import asyncio
import ipaddress
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from palyra_fleet.doctor.finding import Finding, fail, ok, warn, why_not
from palyra_fleet.doctor.machine import serving_pid

WITHIN_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 256 * 1024
GOOD: Final = "ok"
_LISTENS: Final = "0A"
_START: Final = "start it with `palyra-fleet serve`, or pass --offline"


def admin(url_file: Path) -> Iterator[Finding]:
    """The admin listener is on loopback, answers, and is ready."""
    if not url_file.exists():
        yield fail("listener.admin", f"{url_file} is not there: no fleet serves here", _START)
        return
    url = url_file.read_text(encoding="ascii").strip()
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 0
    if parts.scheme != "http" or not _is_loopback(host):
        said = f"{url_file} does not name a loopback address"
        yield fail("listener.admin", said, "start the fleet: it writes where it listens")
        return
    open_to = [address for address in listening_on(port) if not _is_loopback(address)]
    if open_to:
        said = f"port {port} is open on {', '.join(open_to)}, not on loopback alone"
        yield fail("listener.admin", said, "end what listens there, and start the fleet again")
        return
    yield from readiness("listener.admin", f"{url}/readyz", None, _START)


def unix_socket(check: str, path: Path) -> Iterator[Finding]:
    """A socket of the fleet's is there, ours alone, and answers."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        yield fail(check, f"{path} is not there", _START)
        return
    folder = path.parent.stat().st_mode & 0o777
    if not stat.S_ISSOCK(found.st_mode):
        yield fail(check, f"{path} is not a socket", "move it away")
    elif found.st_uid != os.geteuid() or found.st_mode & 0o177 or folder & 0o077:
        said = f"{path}: others may connect (mode {found.st_mode & 0o777:o}, folder {folder:o})"
        yield fail(check, said, "start the fleet again, in a folder of mode 700")
    elif serving_pid(path) is None:
        yield fail(check, f"nobody answers at {path}", _START)
    else:
        yield ok(check, f"{path} answers")


def readiness(check: str, url: str, socket_path: Path | None, starting: str) -> Iterator[Finding]:
    """What a program says of itself at /readyz, over TCP or over its Unix socket."""
    try:
        answer = asyncio.run(_get(url, socket_path))
        checks, alarms = dict(answer["checks"]), dict(answer.get("alarms", {}))
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        said = f"nobody answers at {socket_path or url}: {why_not(error)}"
        yield fail(check, said, starting)
        return
    except (ValueError, KeyError, TypeError):
        said = f"what answers at {socket_path or url} is not ours"
        yield fail(check, said, "find out what listens there")
        return
    bad = {name: text for name, text in checks.items() if text != GOOD}
    for name, text in bad.items():
        yield fail(check, f"not ready: {name}: {text}", "mend what it says; nothing is let out")
    for name, text in alarms.items():
        if text != GOOD:
            yield warn(check, f"alarm: {name}: {text}", "see docs/operators.md")
    if checks and not bad:
        yield ok(check, f"ready: {', '.join(sorted(checks))}")
    elif not checks:
        yield fail(check, "it names no check, which is not ready", starting)


def listening_on(port: int) -> tuple[str, ...]:
    """The local addresses on which anything of this machine listens at a port."""
    found: list[str] = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            address, _, number = words[1].partition(":")
            if words[3] == _LISTENS and int(number, 16) == port:
                found.append(_address(address))
    return tuple(found)


def _address(text: str) -> str:
    """The kernel writes each 32-bit word in the machine's order (little-endian here)."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _get(url: str, socket_path: Path | None) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=WITHIN_S)
    connector = None if socket_path is None else aiohttp.UnixConnector(str(socket_path))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        content = await answer.content.read(MAX_ANSWER_BYTES)
    answered: dict[str, Any] = json.loads(content)
    return answered
