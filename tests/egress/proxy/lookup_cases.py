"""The corpora's cases about look-ups and hidden names, each played through the proxy.

The system's resolver answers as a case says, one answer for each look-up. Public addresses are not
reached from here: what would be dialled is noted, and does not answer (`test_rebinding` does the
same with servers that do).
"""

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from palyra_egress.destination.resolver import LookupLimits, SystemResolver
from palyra_egress.proxy import handler
from palyra_egress.proxy.sockets.pinned_dial import DialRefused
from palyra_egress.reasons import Reason
from tests.egress.proxy.tunnels import tunnel_world
from tests.fakes.client_hello import ECH, GREASE_ECH, extension, hello
from tests.fakes.proxy_harness import Harness, Reply, basic, proxy_harness, read_to_end

POLICY: Final = """\
version: 1
name: lookups
rules:
  - {id: listed, hosts: [allowed.com, 127.0.0.1.nip.io], schemes: [http], ports: [80]}
profiles: {test: [listed]}
violations:
  quarantine: [private_target, mixed_answer]
  strike: {on: [host_not_allowed], limit: 1, window: 10m}
"""


@dataclass
class Lookups:
    """What the system's resolver was asked, and what it answers."""

    given: dict[str, Any]
    asked: list[str] = field(default_factory=list)

    def getaddrinfo(self, host: str, port: int, **_more: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if "rcode" in self.given:
            raise socket.gaierror(socket.EAI_NONAME, self.given["rcode"])
        answers = self.given["answers"]
        answer = answers[min(len(self.asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in answer]


@dataclass
class World:
    harness: Harness
    lookups: Lookups
    dialled: list[tuple[str, ...]]

    async def ask(self, host: str) -> Reply:
        reply = await self.harness.send(
            f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n"
            f"Proxy-Authorization: {basic()}\r\nConnection: close\r\n\r\n".encode()
        )
        assert reply is not None
        return reply

    @property
    def violations(self) -> int:
        return len(self.harness.core.spool.pending)


async def resolved(case: dict[str, Any], directory: Path, patch: pytest.MonkeyPatch) -> None:
    """A case of `dns_resolution`."""
    given, expected = case["input"], case["expected"]
    lookups, dialled = Lookups(given), list[tuple[str, ...]]()
    async with proxy_harness(directory, POLICY) as harness:

        async def noted(pinned: tuple[str, ...], _port: int, **_more: Any) -> Any:
            dialled.append(pinned)
            raise DialRefused(Reason.UPSTREAM_UNREACHABLE)

        patch.setattr(handler, "dial_pinned", noted)
        patch.setattr(socket, "getaddrinfo", lookups.getaddrinfo)
        world = World(harness, lookups, dialled)
        if given.get("timeout"):
            harness.core.resolver.close()
            harness.core.resolver = SystemResolver(LookupLimits(deadline_s=0))
        reply = await world.ask(given.get("name", "allowed.com"))
        if "dial" in (expected if isinstance(expected, dict) else {}):
            await _dialled(world, reply, expected["dial"])
            return
        assert dialled == []
        if expected == "deny" or expected.get("verdict") == "deny":
            assert reply.status == 403
            assert world.violations == 1
        else:
            assert reply.status == expected["status"]
            assert world.violations == int(expected["violation"])
        assert len(lookups.asked) == (0 if "name" in given and "answers" not in given else 1)


async def _dialled(world: World, reply: Reply, address: str) -> None:
    """What was judged is dialled; what the name is later is judged, and not dialled."""
    assert reply.reason == "egress.upstream_unreachable"
    assert world.dialled == [(address,)]
    assert (await world.ask("allowed.com")).reason == "egress.private_target"
    assert world.dialled == [(address,)]
    assert world.lookups.asked == ["allowed.com", "allowed.com"]


async def hidden(case: dict[str, Any], directory: Path) -> None:
    """An encrypted ClientHello, or GREASE, in a tunnel that is passed on. In one that is inspected
    it ends at the proxy, and its inner name goes nowhere."""
    assert "deny" in (case["expected"], case.get("acceptable"))
    async with tunnel_world.open_world(directory) as world:
        sent = hello(b"t.example", extension(ECH, GREASE_ECH))
        reader, _ = await world.open(after=sent)
        assert await read_to_end(reader) == b""
        assert world.reasons() == ["allowed", "ech_not_allowed"]
        assert world.raw.connections == 0
