"""Does the proxy's memory stay flat? Many requests, beside many tunnels that say nothing.

The proxy is `palyra-egress up` as anybody starts it; the credential belongs to a real lease. First
the tunnels are opened, each with inspected TLS and one exchange inside, and stay open to the end,
with another exchange at every fourth sample.
Then plain requests are made on connections that stay open, and the resident memory of the proxy's
process (proxy, fleet and audit log together) is taken twenty times while they pass. Growth is told
from the first quarter to the end: before that, caches fill. At the end every tunnel must still
carry a request. It is bounded in time: what was not done by then is said, and counts as a failure.
"""

import argparse
import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from contenders import NAME, Contender, line_of, ours_for, started, with_all_descriptors
from load import Caller, Plan, opened

from palyra_egress.demo.upstream_ca import UpstreamCa

CONNECTIONS: Final = 16
OPENING_AT_ONCE: Final = 8
TURNS: Final = 4  # the proxy closes a connection that has said nothing for ten minutes
SAMPLES: Final = 20
MIB: Final = 1024 * 1024


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MIB, 1)


def plan_for(where: Contender, port: int, *, is_tls: bool) -> Plan:
    ca_file = str(where.ca_file) if is_tls else None
    return Plan(
        ("127.0.0.1", port), NAME, ca_file, where.proxy, where.authorization, 1, 0.0, fresh=False
    )


async def idle_tunnels(plan: Plan, count: int) -> list[Caller]:
    """Open tunnels, each with one exchange behind it."""
    context = ssl.create_default_context(cafile=plan.ca_file)
    gate = asyncio.Semaphore(OPENING_AT_ONCE)

    async def one() -> Caller:
        async with gate:
            caller = await opened(plan, context)
            await caller.ask(plan.request)
            return caller

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def requests(plan: Plan, count: int) -> None:
    callers = [await opened(plan, None) for _ in range(CONNECTIONS)]
    share = -(-count // CONNECTIONS)

    async def ask(caller: Caller) -> None:
        for _ in range(share):
            await caller.ask(plan.request)

    await asyncio.gather(*(ask(caller) for caller in callers))
    for caller in callers:
        caller.close()


async def soaked(
    where: Contender, ports: dict[str, int], count: int, tunnels: int, within_s: float
) -> dict[str, object]:
    assert where.pid is not None
    at_start = resident_mib(where.pid)
    inside = plan_for(where, ports["tls"], is_tls=True)
    idle = await idle_tunnels(inside, tunnels)
    with_tunnels = resident_mib(where.pid)
    plain, samples = plan_for(where, ports["plain"], is_tls=False), []
    began, cpu_before = time.monotonic(), where.cpu_seconds() or 0.0
    async with asyncio.timeout(within_s):
        for number in range(SAMPLES):
            await requests(plain, count // SAMPLES)
            for caller in idle[number % TURNS :: TURNS]:
                await caller.ask(inside.request)
            samples.append(resident_mib(where.pid))
            took = time.monotonic() - began
            done = count * (number + 1) // SAMPLES
            print(f"{done} requests in {took:.0f} s: {samples[-1]} MiB", file=sys.stderr)
    took, cpu = time.monotonic() - began, (where.cpu_seconds() or 0.0) - cpu_before
    for caller in idle:
        await caller.ask(inside.request)
        caller.close()
    return {
        "requests": count,
        "seconds": round(took, 1),
        "proxy_cpu_us_per_request": round(cpu / count * 1e6),
        "tunnels": tunnels,
        "start_mib": at_start,
        "with_tunnels_mib": with_tunnels,
        "samples_mib": samples,
        "growth_mib": round(samples[-1] - samples[SAMPLES // 4], 1),
    }


async def run(count: int, tunnels: int, within_s: float) -> dict[str, object]:
    with_all_descriptors()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        ca = UpstreamCa.create(directory)
        program = Path(__file__).with_name("upstream.py")
        async with started(sys.executable, program, ca.issue(NAME), core=1) as upstream:
            ports = json.loads(await line_of(upstream))
            most = str(tunnels + CONNECTIONS + 8)
            flags = ("--max-connections-per-worker", most)
            async with ours_for(directory, ca.ca_file, ports, 1, *flags) as (where,):
                return await soaked(where, ports, count, tunnels, within_s)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--tunnels", type=int, default=2_000)
    parser.add_argument("--within", type=float, default=1800.0, help="seconds for the requests")
    parser.add_argument("--json", action="store_true", help="print JSON instead of sentences")
    given = parser.parse_args(arguments)
    try:
        found = asyncio.run(run(given.requests, given.tunnels, given.within))
    except TimeoutError:
        print(f"not done within {given.within:.0f} s", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        print("MiB of the proxy's process:", *found["samples_mib"])  # type: ignore[misc]
        print(f"started with {found['start_mib']}, {found['with_tunnels_mib']} with the tunnels")
        print(
            f"{found['requests']} requests in {found['seconds']} s: {found['growth_mib']} MiB more"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
