"""What a flood costs an honest worker: its latency alone, and beside each kind of flood.

The proxy is `palyra-egress up` as anybody starts it, with two programs that `palyra-egress run`
holds open, one lease each. The honest worker makes one allowed request after the other on a
connection that stays open. The flooding one, a program of its own, asks for a host that no rule
names as fast as its connections allow, over connections that stay open and over fresh ones; or it
uploads bodies without end in chunks of one byte. Latency is that of whole answers, in milliseconds,
by nearest rank.
"""

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from contenders import LOAD_CORE, NAME, Contender, line_of, ours_for, started

from palyra_egress.demo.upstream_ca import UpstreamCa

UNKNOWN: Final = "nobody.example"
SIZES: Final = {
    "refusals": {"connections": 16, "fresh": 4},
    "chunks": {"connections": 4, "fresh": 0},
}

type Row = dict[str, str | float]


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


async def beside(kind: str, where: Contender, flooder: Contender, port: int, seconds: float) -> Row:
    """The honest worker's latency while the flood goes on, and how much of it there was."""
    authority = f"{NAME}:{port}" if kind == "chunks" else f"{UNKNOWN}:80"
    told = {
        "proxy": flooder.proxy,
        "authority": authority,
        "authorization": flooder.authorization,
        "kind": kind,
        **SIZES[kind],
    }
    program = Path(__file__).with_name("flood.py")
    async with started(sys.executable, program, json.dumps(told), core=LOAD_CORE) as flood:
        await line_of(flood, "ready")
        before = await _count(flood)
        took = await honest(where, port, seconds)
        count = await _count(flood)
    per_s = round((count - before) / seconds)
    return {"beside": kind, **summary(took), "flood": count, "flood_per_s": per_s}


async def _count(flood: asyncio.subprocess.Process) -> int:
    assert flood.stdin is not None
    flood.stdin.write(b"\n")
    return int(await line_of(flood))


async def measured(where: Contender, flooder: Contender, port: int, seconds: float) -> list[Row]:
    await honest(where, port, min(1.0, seconds))  # warm
    alone: Row = {"beside": "nobody", **summary(await honest(where, port, seconds))}
    return [{**alone, "flood": 0, "flood_per_s": 0}] + [
        await beside(kind, where, flooder, port, seconds) for kind in SIZES
    ]


def summary(took: Sequence[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {
        "requests": len(ordered),
        "p50_ms": round(ordered[len(ordered) // 2], 2),
        "p99_ms": round(ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)], 2),
        "worst_ms": round(ordered[-1], 2),
    }


async def run(seconds: float) -> list[Row]:
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
    columns = ("beside", "requests", "p50_ms", "p99_ms", "worst_ms", "flood_per_s")
    print("".join(f"{column:>14}" for column in columns))
    for row in found:
        print("".join(f"{row[column]:>14}" for column in columns))
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"flood: refusals, or KiB of chunks of one byte; load average {load}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
