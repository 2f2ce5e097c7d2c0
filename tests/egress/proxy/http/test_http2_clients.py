"""Real clients speak HTTP/2 through the proxy: curl, Node, httpx; and a Node server with no other.

What a person sees of a refusal is asserted too: the reason is in the body and in Proxy-Status.
"""

import asyncio
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_fleet.tasks import spawn
from tests.egress.proxy.http.h2_world import HOSTS, POLICY, Http2World, http2_world
from tests.egress.proxy.http.hurried import Hurry
from tests.fakes.proxy_harness import LEASE, SECRET, Harness, proxy_harness
from tests.fakes.until import until

BOTH = pytest.mark.parametrize("speaks", [1, 2])


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path) as made:
        yield made


def needed(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed; scripts/system-packages names it")
    return found


async def ran(*command: str, given: bytes = b"", **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(given)
    return process.returncode or 0, out.decode(), err.decode()


def door(harness: Harness) -> str:
    host, port = harness.proxy.address
    return f"http://{LEASE}:{SECRET}@{host}:{port}"


def root(harness: Harness) -> Path:
    return harness.proxy.enforcement.authority.root_path


# --- curl -----------------------------------------------------------------------------------------


def curl(world: Http2World, speaks: int, path: str, *more: str) -> list[str]:
    return [
        needed("curl"), "-sS", "--http2", "-x", door(world.harness),
        "--cacert", str(root(world.harness)), "-w", "\n%{http_version} %{http_code}", *more,
        f"https://{world.authority(speaks=speaks)}{path}",
    ]  # fmt: skip


@BOTH
async def test_curl_is_answered(world, speaks):
    code, out, err = await ran(*curl(world, speaks, "/x"))
    assert (code, out) == (0, "hello\n2 200"), err


@BOTH
async def test_curl_uploads_what_has_no_length(world, speaks):
    code, out, err = await ran(*curl(world, speaks, "/x", "-T", "-"), given=b"body " * 10_000)
    assert (code, out) == (0, "hello\n2 200"), err
    if speaks == 2:
        assert bytes(world.second.streams[0].body) == b"body " * 10_000
    else:
        assert b"Transfer-Encoding: chunked" in bytes(world.first.received)


async def test_curl_shows_why_it_is_refused(world):
    code, out, _ = await ran(*curl(world, 2, "/closed", "-D", "-"))
    assert code == 0
    assert "\n2 403" in out
    assert 'proxy-status: palyra-egress; error=http_request_denied; details="egress.path' in out
    assert '"reason": "egress.path_not_allowed"' in out


# --- Node -----------------------------------------------------------------------------------------

NODE_CLIENT = """
const http = require('http'), http2 = require('http2'), tls = require('tls'), fs = require('fs');
const [proxy, authority, ca] = process.argv.slice(2);
const door = new URL(proxy);
const auth = 'Basic ' + Buffer.from(door.username + ':' + door.password).toString('base64');
const ask = http.request({host: door.hostname, port: door.port, method: 'CONNECT',
  path: authority, headers: {host: authority, 'proxy-authorization': auth}});
ask.on('connect', (answer, socket) => {
  const secure = tls.connect({socket, servername: 'api.example', ALPNProtocols: ['h2'],
    ca: fs.readFileSync(ca)}, () => {
    const session = http2.connect('https://' + authority, {createConnection: () => secure});
    const one = (path, body) => new Promise((done) => {
      const stream = session.request({':path': path, ':method': body ? 'POST' : 'GET'});
      let status, text = '';
      stream.on('response', (headers) => { status = headers[':status']; });
      stream.on('data', (data) => { text += data; });
      stream.on('close', () => done([status, text]));
      stream.on('error', () => {});
      stream.end(body);
    });
    Promise.all([one('/x/1'), one('/x/2', 'body'), one('/closed'), one('/x/3')])
      .then((all) => { console.log(JSON.stringify(all)); session.close(); });
  });
});
ask.end();
"""


@BOTH
async def test_nodes_streams_are_each_answered(world, speaks, tmp_path):
    script = tmp_path / "client.js"
    script.write_text(NODE_CLIENT)
    code, out, err = await ran(
        needed("node"), str(script), door(world.harness), world.authority(speaks=speaks),
        str(root(world.harness)),
    )  # fmt: skip
    assert code == 0, err
    first, second, refused, third = json.loads(out)
    assert first == second == third == [200, "hello"]
    assert refused[0] == 403
    assert "egress.path_not_allowed" in refused[1]


IDLE_NODE_CLIENT = NODE_CLIENT.replace(
    "session.close();",
    """
        session.on('goaway', (code, last) => console.log(JSON.stringify([code, last])));
        session.on('error', (error) => console.log('error', error.code));
        session.on('close', () => console.log('closed'));""",
)


async def test_node_hears_that_its_idle_connection_ends_and_sees_no_error(tmp_path):
    script = tmp_path / "client.js"
    script.write_text(IDLE_NODE_CLIENT)
    async with http2_world(tmp_path, deadlines=Deadlines(silence_s=0.3)) as world:
        hurry = Hurry(world.harness)
        run = spawn(
            ran(
                *(needed("node"), str(script), door(world.harness)),
                *(world.authority(speaks=2), str(root(world.harness))),
            ),
            "run Node",
        )
        await until("all are answered", lambda: run.done() or hurry.outcomes() == ["complete"] * 3)
        hurry.pass_s(1)
        code, out, err = await run
    assert code == 0, err
    _, *told = out.splitlines()
    assert told == ["[0,7]", "closed"]


NODE_SERVER = """
const http2 = require('http2'), fs = require('fs');
const pem = fs.readFileSync(process.argv[2]);
const server = http2.createSecureServer({key: pem, cert: pem, allowHTTP1: false});
server.on('stream', (stream, headers) => {
  let text = '';
  stream.on('data', (data) => { text += data; });
  stream.on('end', () => {
    stream.respond({':status': 200}, {waitForTrailers: true});
    stream.on('wantTrailers', () => stream.sendTrailers({'x-end': 'done'}));
    stream.end(headers[':method'] + ' ' + headers[':path'] + ' ' + text);
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


async def test_an_http1_worker_reaches_a_server_that_speaks_http2_only(tmp_path):
    """It refuses TLS without `h2` (RFC 7301 section 3.2), and is asked once more."""
    ca = UpstreamCa.create(tmp_path / "ca")
    script = tmp_path / "server.js"
    script.write_text(NODE_SERVER)
    server = await asyncio.create_subprocess_exec(
        needed("node"), str(script), str(ca.issue("api.example")), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        async with asyncio.timeout(60):
            port = int(await server.stdout.readline())
        async with proxy_harness(
            tmp_path / "proxy", POLICY.format(ports=port), HOSTS, ca.ca_file
        ) as harness:
            authority = f"api.example:{port}"
            _, reader, writer = await harness.tunnel(authority)
            for body in (b"one", b"two"):
                writer.write(
                    f"POST /x HTTP/1.1\r\nHost: {authority}\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n".encode()
                    + b"3\r\n"
                    + body
                    + b"\r\n0\r\n\r\n"
                )
                async with asyncio.timeout(60):
                    head = await reader.readuntil(b"\r\n\r\n")
                    answer = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert answer == b"b\r\nPOST /x " + body + b"\r\n0\r\nx-end: done\r\n\r\n"
            writer.close()
    finally:
        server.kill()
        await server.wait()


# --- httpx ----------------------------------------------------------------------------------------


@BOTH
async def test_httpx_speaks_http2(world, speaks):
    trusted = ssl.create_default_context(cafile=str(root(world.harness)))
    async with httpx.AsyncClient(http2=True, proxy=door(world.harness), verify=trusted) as client:
        url = f"https://{world.authority(speaks=speaks)}"
        answers = await asyncio.gather(
            client.get(f"{url}/x"),
            client.post(f"{url}/x/1", content=b"x" * 100_000),
            client.get(f"{url}/closed"),
        )
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    assert [answer.status_code for answer in answers] == [200, 200, 403]
    assert answers[2].json()["reason"] == "egress.path_not_allowed"
