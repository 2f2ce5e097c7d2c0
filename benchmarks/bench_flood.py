"""What a flood of refusals costs an honest worker: its latency, alone and beside the flood.

The proxy is `palyra-egress up` as anybody starts it, with two programs that `palyra-egress run`
holds open, one lease each. The honest worker makes one allowed request after the other on a
connection that stays open; the flooding one asks for a host that no rule names, as fast as its
connections allow, over connections that stay open and over fresh ones. Latency is that of whole
answers, in milliseconds, by nearest rank.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from contenders import NAME, Contender, line_of, ours_for, started

from palyra_egress.demo.upstream_ca import UpstreamCa

UNKNOWN: Final = "nobody.example"
FLOODERS: Final = 16
FRESH_FLOODERS: Final = 4

type Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def request(host: str, port: int, authorization: str) -> bytes:
    authority = f"{host}:{port}"
    return (
        f"GET http://{authority}/work HTTP/1.1\r\nHost: {authority}\r\n"
        f"Proxy-Authorization: {authorization}\r\n\r\n"
    ).encode()


async def answer(reader: asyncio.StreamReader) -> int:
    """The status of one whole answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
    await reader.readexactly(int(length or 0))
    return int(head.split(b" ", 2)[1])


async def honest(where: Contender, port: int, seconds: float) -> list[float]:
    """How long each of its requests took, in milliseconds."""
    assert where.proxy is not None and where.authorization is not None
    reader, writer = await asyncio.open_connection(*where.proxy)
    asked = request(NAME, port, where.authorization)
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        writer.write(asked)
        if await answer(reader) != 200:
            raise RuntimeError("an honest request was refused")
        took.append((time.monotonic() - began) * 1000)
    writer.close()
    return took


class Flood:
    """Refusals without end; counts them."""

    def __init__(self, where: Contender) -> None:
        assert where.proxy is not None and where.authorization is not None
        self.refusals = 0
        self._proxy = where.proxy
        self._asked = request(UNKNOWN, 80, where.authorization)

    async def keep_alive(self) -> None:
        reader, writer = await asyncio.open_connection(*self._proxy)
        while True:
            await self._one(reader, writer)

    async def fresh(self) -> None:
        while True:
            reader, writer = await asyncio.open_connection(*self._proxy)
            await self._one(reader, writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._asked)
        if await answer(reader) != 403:
            raise RuntimeError("the flood was not refused as it should be")
        self.refusals += 1


async def measured(
    where: Contender, flooder: Contender, port: int, seconds: float
) -> dict[str, object]:
    await honest(where, port, min(1.0, seconds))  # warm
    alone = await honest(where, port, seconds)
    flood = Flood(flooder)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(flood.keep_alive()) for _ in range(FLOODERS)]
        tasks += [group.create_task(flood.fresh()) for _ in range(FRESH_FLOODERS)]
        await asyncio.sleep(min(1.0, seconds))
        before = flood.refusals
        beside = await honest(where, port, seconds)
        refused = flood.refusals - before
        for task in tasks:
            task.cancel()
    return {
        "alone": summary(alone),
        "beside": summary(beside),
        "refusals_per_s": round(refused / seconds),
    }


def summary(took: Sequence[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {
        "requests": len(ordered),
        "p50_ms": round(ordered[len(ordered) // 2], 2),
        "p99_ms": round(ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)], 2),
        "worst_ms": round(ordered[-1], 2),
    }


async def run(seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        ca = UpstreamCa.create(directory)
        program = Path(__file__).with_name("upstream.py")
        async with started(sys.executable, program, ca.issue(NAME), core=1) as upstream:
            ports = json.loads(await line_of(upstream))
            async with ours_for(directory, ca.ca_file, ports, 2) as (one, other):
                return await measured(one, other, ports["plain"], seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args(arguments)
    found = asyncio.run(run(given.seconds))
    if given.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{'honest worker':14}{'requests':>10}{'p50 ms':>10}{'p99 ms':>10}{'worst ms':>10}")
    for name in ("alone", "beside"):
        one = found[name]
        assert isinstance(one, dict)
        print(
            f"{name:14}{one['requests']:>10}{one['p50_ms']:>10}{one['p99_ms']:>10}{one['worst_ms']:>10}"
        )
    print(f"beside {found['refusals_per_s']} refusals a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
