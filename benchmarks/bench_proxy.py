"""Requests a second and proxy CPU per request: direct, stock mitmdump, and ours, in one run.

Three kinds of work: plain HTTP on connections that stay open, inspected HTTPS on connections that
stay open, and a new connection with tunnel and TLS handshake for every request. The proxies have
one core, load generator and upstream the other. Contenders take turns within each round, and the
median of the rounds is shown, so that a busy machine hurts all alike. See README.md.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contenders import LOAD_CORE, NAME, Contender, direct, line_of, mitmdump, ours, started
from load import Plan

from palyra_egress.demo.upstream_ca import UpstreamCa

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Work:
    name: str
    tls: bool
    fresh: bool


WORKS = (
    Work("plain HTTP, keep-alive", tls=False, fresh=False),
    Work("inspected HTTPS, keep-alive", tls=True, fresh=False),
    Work("new TLS connections", tls=True, fresh=True),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement; `cpu_us` is the proxy's user and system time per request."""

    requests: int
    per_second: float
    cpu_us: float | None


@dataclass(frozen=True, slots=True)
class Settings:
    seconds: float
    rounds: int
    connections: int


async def measure(
    contender: Contender, work: Work, ports: dict[str, int], settings: Settings
) -> Sample:
    """Let one load generator run once."""
    plan = Plan(
        origin=("127.0.0.1", ports["tls" if work.tls else "plain"]),
        name=NAME,
        ca_file=str(contender.ca_file) if work.tls else None,
        proxy=contender.proxy,
        authorization=contender.authorization,
        connections=settings.connections,
        seconds=settings.seconds,
        fresh=work.fresh,
    )
    async with started(
        *(sys.executable, HERE / "load.py", json.dumps(asdict(plan))), core=LOAD_CORE
    ) as load:
        await line_of(load, "ready")
        before = contender.cpu_seconds()
        assert load.stdin is not None
        load.stdin.write(b"go\n")
        seen = json.loads(await line_of(load, "{"))
        after = contender.cpu_seconds()
    count, took = int(seen["requests"]), float(seen["seconds"])
    cpu_us = None
    if before is not None and after is not None and count:
        cpu_us = (after - before) / count * 1e6
    return Sample(count, count / took, cpu_us)


async def run(settings: Settings) -> dict[str, Any]:
    """All rounds of everything; the report as plain data."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ca = UpstreamCa.create(directory / "upstream")
        upstream = await stack.enter_async_context(
            started(sys.executable, HERE / "upstream.py", ca.issue(NAME), core=LOAD_CORE)
        )
        ports = json.loads(await line_of(upstream))
        contenders = (
            direct(ca.ca_file),
            await stack.enter_async_context(mitmdump(directory, ca.ca_file)),
            await stack.enter_async_context(ours(directory, ca.ca_file, ports)),
        )
        for number in range(settings.rounds):
            for work in WORKS:
                for contender in contenders:
                    sample = await measure(contender, work, ports, settings)
                    samples.setdefault((work.name, contender.name), []).append(sample)
            print(f"round {number + 1} of {settings.rounds} done", file=sys.stderr)
    return report(samples, settings)


def report(samples: dict[tuple[str, str], list[Sample]], settings: Settings) -> dict[str, Any]:
    rows = []
    for work in WORKS:
        cells = {name: _cell(found) for (of, name), found in samples.items() if of == work.name}
        rate = {name: cell["requests_per_second"] for name, cell in cells.items()}
        rows.append(
            {
                "work": work.name,
                "cells": cells,
                "ours_to_mitmdump": _ratio(rate["ours"], rate["mitmdump"]),
                "ours_to_direct": _ratio(rate["ours"], rate["direct"]),
            }
        )
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "load_average": list(os.getloadavg()),
        "python": sys.version.split()[0],
    }
    return {"settings": asdict(settings), "machine": machine, "works": rows}


def _cell(found: list[Sample]) -> dict[str, Any]:
    costs = [sample.cpu_us for sample in found if sample.cpu_us is not None]
    return {
        "requests": sum(sample.requests for sample in found),
        "requests_per_second": statistics.median(sample.per_second for sample in found),
        "proxy_cpu_us_per_request": statistics.median(costs) if costs else None,
        "every_round_per_second": [round(sample.per_second, 1) for sample in found],
    }


def _ratio(ours_rate: float, other: float) -> float | None:
    return ours_rate / other if other else None


def table(found: dict[str, Any]) -> str:
    names = ("direct", "mitmdump", "ours")
    head = f"{'requests/s (proxy CPU us)':30}" + "".join(f"{name:>20}" for name in names)
    lines = [f"{head}{'ours/mitmdump':>16}{'ours/direct':>14}"]
    for row in found["works"]:
        cells = "".join(f"{_shown(row['cells'][name]):>20}" for name in names)
        ratios = f"{_times(row['ours_to_mitmdump']):>16}{_times(row['ours_to_direct']):>14}"
        lines.append(f"{row['work']:30}{cells}{ratios}")
    settings, machine = found["settings"], found["machine"]
    load = ", ".join(f"{value:.2f}" for value in machine["load_average"])
    lines.append(
        f"{settings['connections']} connections, {settings['seconds']:g} s, median of "
        f"{settings['rounds']} rounds; {machine['cores']} cores, load average {load}"
    )
    return "\n".join(lines)


def _shown(cell: dict[str, Any]) -> str:
    rate, cost = cell["requests_per_second"], cell["proxy_cpu_us_per_request"]
    return f"{rate:,.0f}" if cost is None else f"{rate:,.0f} ({cost:,.0f})"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args(arguments)
    found = asyncio.run(run(Settings(given.seconds, given.rounds, given.connections)))
    print(json.dumps(found, indent=2) if given.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
