"""What goes through a tunnel that SOCKS opened: what was judged, and nothing else; also with curl.

Every test asks the upstreams what arrived there.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from palyra_egress.proxy.bounds.deadlines import Deadlines
from tests.egress.proxy.held_deadlines import held_deadlines
from tests.egress.proxy.lanes import Chaos, chaos, inner_head
from tests.fakes.client_hello import hello
from tests.fakes.proxy_harness import (
    LEASE,
    SECRET,
    Injection,
    binding,
    proxy_harness,
    read_reply,
    read_to_end,
)
from tests.fakes.socks_client import (
    SUCCEEDED,
    asked,
)
from tests.fakes.upstream import recording_upstream

NOT_ALLOWED = 2


@pytest.fixture
async def world(tmp_path):
    async with chaos(tmp_path) as made:
        yield made


def reasons(world: Chaos) -> list[str]:
    return [entry["reason"].removeprefix("egress.") for entry in world.harness.verdicts()]


# --- what is spoken inside ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("other.example", "authority_mismatch"),
        ("plain.example", "authority_mismatch"),  # without its port: another one
    ],
)
async def test_a_host_inside_that_is_not_the_tunnels_is_refused(world, host, reason):
    code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
    assert code == SUCCEEDED
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    reply = await read_reply(reader)
    assert reply is not None and reply.reason == f"egress.{reason}"
    world.nothing_was_dialled()


async def test_each_plain_request_inside_is_judged(world):
    authority = f"plain.example:{world.plain.port}"
    code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
    assert code == SUCCEEDED
    for method, status in (("GET", 200), ("DELETE", 403), ("POST", 200)):
        writer.write(
            f"{method} /x HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        reply = await read_reply(reader)
        assert reply is not None and reply.status == status
    assert world.plain.heads == [b"GET /x HTTP/1.1", b"POST /x HTTP/1.1"]


async def test_a_proxy_request_inside_is_no_way_to_another_host(world):
    code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
    assert code == SUCCEEDED
    writer.write(b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n")
    reply = await read_reply(reader)
    assert reply is not None and reply.reason == "egress.authority_mismatch"
    world.nothing_was_dialled()


async def test_a_connect_inside_is_refused(world):
    code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
    assert code == SUCCEEDED
    writer.write(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n")
    got = await read_to_end(reader)
    assert got == b"" or got.startswith(b"HTTP/1.1 4")
    assert world.harness.verdicts()[-1]["effect"] == "deny"
    world.nothing_was_dialled()


@pytest.mark.parametrize("sni", [b"other.example", None])
async def test_a_client_hello_for_another_server_is_reset(world, sni):
    code, (reader, writer) = await asked(world.harness, "api.example", world.secure.port)
    assert code == SUCCEEDED
    writer.write(hello(sni))
    assert await read_to_end(reader) == b""
    assert reasons(world)[-1] == ("authority_mismatch" if sni else "sni_missing")
    world.nothing_was_dialled()


@pytest.mark.parametrize(
    ("host", "first", "reason"),
    [
        ("api.example", b"SSH-2.0-OpenSSH_9.9\r\n", "non_http_in_tunnel"),
        ("api.example", b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n", "non_http_in_tunnel"),
        ("api.example", b"\x05\x01\x02", "non_http_in_tunnel"),
        ("tunnel.example", b"\x00\x00\x00\x00", "non_http_in_tunnel"),
        ("plain.example", b"\x00\x1d\x12\x34", "non_http_in_tunnel"),
        ("plain.example", hello(b"plain.example"), "scheme_not_allowed"),
    ],
)
async def test_anything_but_what_was_judged_is_refused(world, host, first, reason):
    port = world.plain.port if host == "plain.example" else world.secure.port
    code, (reader, writer) = await asked(world.harness, host, port)
    assert code == SUCCEEDED
    writer.write(first)
    assert await read_to_end(reader) == b""
    assert reasons(world)[-1] == reason
    world.nothing_was_dialled()


async def test_http2_without_tls_is_no_request(world):
    code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
    assert code == SUCCEEDED
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    assert (await read_to_end(reader)).startswith(b"HTTP/1.1 400 ")
    world.nothing_was_dialled()


async def test_a_client_that_says_nothing_inside_is_cut_off(tmp_path):
    inject = Injection(deadlines=Deadlines(hello_s=0.1))
    async with chaos(tmp_path, inject) as world:
        code, (reader, _) = await asked(world.harness, "plain.example", world.plain.port)
        assert code == SUCCEEDED
        assert await read_to_end(reader) == b""
        code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
        writer.write(b"GET / HT")
        assert await read_to_end(reader) == b""
        world.nothing_was_dialled()


async def test_an_idle_plain_tunnel_that_has_spoken_is_not_cut_off(tmp_path, monkeypatch):
    time_to_speak_passes = held_deadlines(monkeypatch, 51.0)
    inject = Injection(deadlines=Deadlines(hello_s=51.0))
    async with chaos(tmp_path, inject) as world:
        authority = f"plain.example:{world.plain.port}"
        code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
        assert code == SUCCEEDED
        raw = f"GET /x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
        writer.write(raw)
        assert await read_reply(reader) is not None
        time_to_speak_passes()
        writer.write(raw)
        reply = await read_reply(reader)
        assert reply is not None and reply.status == 200


# --- curl -----------------------------------------------------------------------------------------


@pytest.fixture
def curl() -> str:
    found = shutil.which("curl")
    if found is None:
        pytest.skip("curl is not installed here")
    return found


async def run_curl(world: Chaos, curl: str, *arguments: str) -> tuple[int, str, str]:
    host, port = world.harness.proxy.socks_address or ("", 0)
    process = await asyncio.create_subprocess_exec(
        curl,
        *("-sS", "--max-time", "20", "--proxy-user", f"{LEASE}:{SECRET}"),
        *(argument.replace("PROXY", f"{host}:{port}") for argument in arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_curl_goes_through_with_the_name_of_its_host(world, curl):
    root = str(world.harness.proxy.enforcement.authority.root_path)
    https = f"https://api.example:{world.secure.port}/x"
    http = f"http://plain.example:{world.plain.port}/x"
    for url, upstream in ((https, world.secure), (http, world.plain)):
        code, out, err = await run_curl(
            world, curl, "--socks5-hostname", "PROXY", "--cacert", root, url
        )
        assert (code, out) == (0, "hello"), err
        assert upstream.heads == [b"GET /x HTTP/1.1"]


async def test_curl_through_a_tunnel_that_is_passed_on(world, curl):
    url = f"https://tunnel.example:{world.secure.port}/x"
    code, out, err = await run_curl(
        world, curl, "--socks5-hostname", "PROXY", "--cacert", str(world.roots), url
    )
    assert (code, out) == (0, "hello"), err


async def test_curl_that_resolves_by_itself_asks_for_an_address_and_is_judged_by_it(world, curl):
    url = f"http://plain.example:{world.plain.port}/x"
    resolved = f"plain.example:{world.plain.port}:127.0.0.1"
    code, _, err = await run_curl(world, curl, "--socks5", "PROXY", "--resolve", resolved, url)
    assert code == 97, err  # the SOCKS handshake was refused
    assert reasons(world) == ["private_target"]
    world.nothing_was_dialled()


async def test_curl_says_that_a_host_is_not_allowed(world, curl):
    code, _, err = await run_curl(
        world, curl, "--socks5-hostname", "PROXY", "https://paste.example/"
    )
    assert code == 97
    assert "connection not allowed by ruleset" in err.lower() or "(2)" in err
    assert reasons(world) == ["host_not_allowed"]


# --- one port, both schemes -----------------------------------------------------------------------

BOTH = """\
version: 1
name: both
rules:
  - {{id: both, hosts: [both.example], schemes: [http, https], ports: [{port}],
      methods: [GET], private: [127.0.0.0/8]}}
profiles: {{test: [both]}}
"""


async def test_what_is_spoken_decides_where_both_are_allowed(tmp_path: Path):
    async with (
        recording_upstream() as upstream,
        proxy_harness(
            tmp_path, BOTH.format(port=upstream.port), "127.0.0.1 both.example\n"
        ) as harness,
    ):
        code, (reader, writer) = await asked(harness, "both.example", upstream.port)
        assert code == SUCCEEDED
        writer.write(inner_head(f"both.example:{upstream.port}", "GET"))
        assert (await read_to_end(reader)).endswith(b"hello")
        targets = [entry["target"] for entry in harness.verdicts()]
        authority = f"both.example:{upstream.port}"
        assert targets == [authority, f"http://{authority}", f"http://{authority}/x"]
        code, (reader, writer) = await asked(harness, "both.example", upstream.port)
        await harness.shake_hands(writer, "both.example")  # the worker's side of TLS is answered
        assert harness.verdicts()[-1]["target"] == authority


async def test_a_lease_of_another_profile_is_judged_by_its_own(world):
    world.harness.tell("bind", bindings=(binding(profile="unknown"),))
    code, _ = await asked(world.harness, "plain.example", world.plain.port)
    assert code == NOT_ALLOWED
    assert reasons(world) == ["profile_unknown"]
