"""What traces cost a request, as ratios within one run.

One plain HTTP request after the other over one connection, through a real proxy on loopback to a
server beside it, in blocks that take turns: no traces, traces of which none is sampled (ratio 0),
of every tenth, of all. The receiver is a process of its own. A cell is the median over rounds of
the CPU time per request of the process, which holds proxy, worker and server, against the block
without traces of the same round; `off/off` is that block measured a second time, which is the
noise. Beside it, the three calls that a request makes without traces, timed alone.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from palyra_egress.credentials.injection import nothing_offered
from palyra_egress.proxy.signals.request_trace import RequestTraces
from palyra_fleet.traces.running import close_spans, open_spans
from palyra_fleet.traces.settings import TraceSettings
from palyra_fleet.traces.spans import Spans
from tests.fakes.proxy_harness import Harness, basic, proxy_harness, read_reply
from tests.fakes.upstream import RecordingUpstream, recording_upstream

POLICY = """\
version: 1
name: bench
rules:
  - id: plain
    hosts: [plain.example]
    schemes: [http]
    ports: [{port}]
    private: [127.0.0.0/8]
profiles:
  test: [plain]
"""
RECEIVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Take(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = HTTPServer(("127.0.0.1", 0), Take)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
RATIOS = {"ratio 0": 0.0, "ratio 0.1": 0.1, "ratio 1": 1.0}


@dataclass(slots=True)
class Blocks:
    """CPU microseconds per request, by block, one value a round."""

    harness: Harness
    upstream: RecordingUpstream
    requests: int

    async def one(self, spans: Spans | None) -> float:
        """A block of requests with these spans, or none."""
        self.harness.core.signals.trace_to("bench", spans)
        head = (
            f"GET http://plain.example:{self.upstream.port}/ HTTP/1.1\r\n"
            f"Host: plain.example:{self.upstream.port}\r\nProxy-Authorization: {basic()}\r\n\r\n"
        ).encode()
        reader, writer = await self.harness.connect()
        began = time.process_time()
        for _ in range(self.requests):
            writer.write(head)
            answer = await read_reply(reader)
            assert answer is not None and answer.status == 200
        took = time.process_time() - began
        writer.close()
        self.upstream.heads.clear()
        self.upstream.received.clear()
        return took / self.requests * 1e6


@asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RECEIVER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}/v1/traces"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def without_traces_us(rounds: int) -> float:
    """The calls of one request where no traces are asked for, in microseconds."""
    traces = RequestTraces()

    async def look_up() -> tuple[str, ...]:
        return ()

    samples = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(1_000):
            traces.asked(nothing_offered)
            await traces.timed(look_up)
            traces.decided(None, None, "", None)  # type: ignore[arg-type]
        samples.append((time.process_time() - began) * 1e3)
    return statistics.median(samples)


async def measure(requests: int, rounds: int, directory: Path) -> dict[str, float]:
    async with (
        receiver() as url,
        recording_upstream() as upstream,
        proxy_harness(
            directory, POLICY.format(port=upstream.port), "127.0.0.1 plain.example\n"
        ) as harness,
    ):
        spans = {
            name: open_spans(TraceSettings(url, ratio=ratio), "bench")
            for name, ratio in RATIOS.items()
        }
        blocks = Blocks(harness, upstream, requests)
        await blocks.one(None)  # the first connection warms everything
        cells: dict[str, list[float]] = {name: [] for name in ("off us", "off/off", *RATIOS)}
        for _ in range(rounds):
            off = await blocks.one(None)
            cells["off us"].append(off)
            cells["off/off"].append(await blocks.one(None) / off)
            for name, one in spans.items():
                cells[name].append(await blocks.one(one) / off)
        harness.core.signals.trace_to("bench", None)
        counts = [one.counts for one in spans.values() if one is not None]
        for one in spans.values():
            await close_spans(one)
    found = {name: statistics.median(values) for name, values in cells.items()}
    found["calls us"] = await without_traces_us(rounds)
    found["spans dropped"] = sum(one.dropped for one in counts)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300, help="of one block (default 300)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measure(given.requests, given.rounds, Path(directory) / "proxy"))
    if given.json:
        print(json.dumps(found))
        return
    print(f"CPU per request without traces: {found['off us']:.0f} us; of it the calls that look")
    print(f"whether there are any: {found['calls us']:.2f} us")
    for name in ("off/off", *RATIOS):
        print(f"  {name:10} {found[name]:.3f}")
    print(f"spans dropped: {found['spans dropped']:.0f}")


if __name__ == "__main__":
    main()
