"""Turning a judged name into addresses, once, with a deadline.

Only names that a rule could allow get here, so a refused name causes no DNS query. A `Resolver`
answers with every address it found, in order and without repetition; the judge classifies all of
them. Failures are values: `ResolutionRefused` carries the reason. IP literals are not resolved.
`StaticResolver` answers from an operator's hosts file first, as split-horizon set-ups need.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from palyra_egress.destination.fair_turns import FairTurns, TooManyWaiting
from palyra_egress.errors import OperatorMustAct
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost
from palyra_fleet.trusted_files import UntrustedFile, read_trusted

MAX_ADDRESSES = 64
MAX_HOSTS_BYTES: Final = 16 * 1024 * 1024

type _Asked = list[tuple[object, object, object, str, tuple[object, ...]]]


class ResolutionRefused(Exception):
    """The name has no usable answer; `reason` says why, never with the resolver's own words."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Resolver(Protocol):
    """Answers with all addresses of a name as canonical strings, or raises ResolutionRefused.
    `asker` is whose share of look-ups it is taken from."""

    async def resolve(self, host: CanonicalHost, port: int, asker: str = "") -> tuple[str, ...]: ...

    def close(self) -> None: ...


def literal_address(host: CanonicalHost) -> str | None:
    """The host itself when it is an IP literal."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class LookupLimits:
    """`deadline_s` for one look-up, its wait included; look-ups at once, of one asker, and how many
    of one asker may wait."""

    deadline_s: float = 5.0
    at_once: int = 32
    per_asker: int = 8
    waiting_per_asker: int = 64


LOOKUP_LIMITS: Final = LookupLimits()


class SystemResolver:
    """The system's resolver, in threads of its own so that slow DNS blocks nothing else, and with a
    share for each asker. A thread cannot be interrupted: its turn is over when it has answered, not
    when nobody waits for it any more."""

    def __init__(self, limits: LookupLimits = LOOKUP_LIMITS) -> None:
        self._deadline_s = limits.deadline_s
        self._threads = ThreadPoolExecutor(limits.at_once, thread_name_prefix="palyra-resolve")
        self._turns = FairTurns(limits.at_once, limits.per_asker, limits.waiting_per_asker)

    async def resolve(self, host: CanonicalHost, port: int, asker: str = "") -> tuple[str, ...]:
        if (literal := literal_address(host)) is not None:
            return (literal,)
        try:
            async with asyncio.timeout(self._deadline_s):
                answers = await self._ask(host, port, asker)
        except TooManyWaiting as error:
            raise ResolutionRefused(Reason.RATE_LIMITED) from error
        except TimeoutError as error:
            raise ResolutionRefused(Reason.RESOLUTION_TIMEOUT) from error
        except (OSError, UnicodeError) as error:
            raise ResolutionRefused(Reason.RESOLUTION_FAILED) from error
        addresses = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
        if not addresses:
            raise ResolutionRefused(Reason.RESOLUTION_EMPTY)
        if len(addresses) > MAX_ADDRESSES:
            raise ResolutionRefused(Reason.RESOLUTION_FAILED)
        return addresses

    async def _ask(self, host: CanonicalHost, port: int, asker: str) -> _Asked:
        await self._turns.take(asker)
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._threads, _system_answer, host, port)

        def over(done: asyncio.Future[_Asked]) -> None:
            self._turns.give_back(asker)
            if not done.cancelled():
                done.exception()  # heard here, should nobody wait for it any more

        asked.add_done_callback(over)
        return await asyncio.shield(asked)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _system_answer(host: CanonicalHost, port: int) -> _Asked:
    return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class StaticResolver:
    """Names of an operator's table first, then another resolver for the rest."""

    def __init__(self, table: Mapping[str, tuple[str, ...]], fallback: Resolver) -> None:
        self._table = dict(table)
        self._fallback = fallback

    async def resolve(self, host: CanonicalHost, port: int, asker: str = "") -> tuple[str, ...]:
        if (addresses := self._table.get(host)) is not None:
            return addresses
        return await self._fallback.resolve(host, port, asker)

    def close(self) -> None:
        self._fallback.close()


class HostsFileError(OperatorMustAct):
    """A hosts file is no text, a line of it is not `ADDRESS NAME [NAME …]`, or others may write it.
    Says file, line and what was expected."""


def read_hosts_file(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a file in the form of /etc/hosts. Raises HostsFileError or OSError."""
    table: dict[str, tuple[str, ...]] = {}
    try:
        text = read_trusted(path, MAX_HOSTS_BYTES)[0].decode()
    except UntrustedFile as error:
        raise HostsFileError(str(error)) from None
    except UnicodeDecodeError:
        raise HostsFileError(f"{path}: is not UTF-8; expected lines of ADDRESS NAME …") from None
    for number, raw in enumerate(text.splitlines(), start=1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        try:
            address = str(ipaddress.ip_address(words[0]))
        except ValueError as error:
            raise HostsFileError(
                f"{path}:{number}:1: {words[0]!r} is not an IP address; expected ADDRESS NAME …"
            ) from error
        if len(words) == 1:
            raise HostsFileError(f"{path}:{number}:1: no name; expected ADDRESS NAME …")
        for name in words[1:]:
            key = name.lower().removesuffix(".")
            table[key] = (*table.get(key, ()), address)
    return table
