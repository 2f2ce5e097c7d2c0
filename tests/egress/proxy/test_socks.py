"""SOCKS5 at the proxy's own door, over real sockets: judged as CONNECT is, and nothing else passes.

Every test asks the upstreams what arrived there.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from palyra_egress.proxy.deadlines import Deadlines
from tests.egress.proxy.lanes import Chaos, chaos, inner_head, socks_plain
from tests.fakes.client_hello import hello
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    OTHER_WORKER,
    SECRET,
    WORKER,
    Injection,
    binding,
    proxy_harness,
    read_reply,
    read_to_end,
)
from tests.fakes.socks_client import (
    GREETING,
    METHOD_CHOSEN,
    SUCCEEDED,
    asked,
    credentials,
    greeted,
    request,
)
from tests.fakes.upstream import recording_upstream

NOT_ALLOWED, GENERAL_FAILURE, HOST_UNREACHABLE = 2, 1, 4
REFUSED_CREDENTIALS = b"\x01\x01"


@pytest.fixture
async def world(tmp_path):
    async with chaos(tmp_path) as made:
        yield made


def reasons(world: Chaos) -> list[str]:
    return [entry["reason"].removeprefix("egress.") for entry in world.harness.verdicts()]


class Watching:
    """A resolver that remembers the names it is asked for."""

    def __init__(self, inner):
        self._inner = inner
        self.names: list[str] = []

    async def resolve(self, host, port):
        self.names.append(host)
        return await self._inner.resolve(host, port)

    def close(self):
        self._inner.close()


# --- who is asking --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "answer", "reason"),
    [
        (b"\x05\x01\x00", b"\x05\xff", "no_identity"),
        (b"\x05\x01\x01", b"\x05\xff", "no_identity"),
        (b"\x04\x01\x01\xbb\x7f\0\0\x01\0", b"\0\x5b" + bytes(6), "protocol_not_supported"),
        (b"GET http://plain.example/ HTTP/1.1\r\n\r\n", b"", "protocol_not_supported"),
        (hello(b"api.example"), b"", "protocol_not_supported"),
    ],
    ids=["no authentication", "GSSAPI", "SOCKS4", "HTTP", "TLS"],
)
async def test_who_shows_no_lease_is_refused_in_its_own_words(world, sent, answer, reason):
    reader, writer = await world.harness.connect_socks()
    writer.write(sent)
    assert await read_to_end(reader) == answer
    assert reasons(world) == [reason]
    world.nothing_was_dialled()


@pytest.mark.parametrize(
    ("lease", "secret", "reason"),
    [
        (LEASE, "x" * 43, "bad_credentials"),
        (OTHER_LEASE, SECRET, "bad_credentials"),
        (LEASE[:-1] + "0", SECRET, "no_lease"),
        ("user", "password", "no_identity"),
    ],
)
async def test_credentials_that_are_not_a_leases_are_refused(world, lease, secret, reason):
    reader, writer = await world.harness.connect_socks()
    writer.write(GREETING + credentials(lease, secret) + request("plain.example", world.plain.port))
    assert await read_to_end(reader) == METHOD_CHOSEN + REFUSED_CREDENTIALS
    assert reasons(world) == [reason]
    world.nothing_was_dialled()


async def test_a_quarantined_workers_credentials_are_refused(world):
    world.harness.tell("block", worker_id=WORKER)
    reader, writer = await world.harness.connect_socks()
    writer.write(GREETING + credentials())
    assert await read_to_end(reader) == METHOD_CHOSEN + REFUSED_CREDENTIALS
    entry = world.harness.verdicts()[-1]
    assert (entry["reason"], entry["worker_id"]) == ("egress.quarantined", WORKER)


async def test_a_lease_that_ends_after_its_greeting_gets_no_tunnel(world):
    reader, writer = await greeted(world.harness)
    world.harness.core.view.expired(1 << 60)  # the time of every lease is over
    writer.write(request("plain.example", world.plain.port))
    assert (await reader.readexactly(10))[1] == NOT_ALLOWED
    world.nothing_was_dialled()


async def test_a_client_that_never_names_its_target_is_cut_off_and_audited(tmp_path):
    inject = Injection(deadlines=Deadlines(target_s=0.1))
    async with chaos(tmp_path, inject) as world:
        reader, writer = await world.harness.connect_socks()
        writer.write(GREETING[:1])
        assert await read_to_end(reader) == b""
        assert reasons(world) == ["deadline"]
        reader, _ = await greeted(world.harness)
        assert await read_to_end(reader) == b""
        entry = world.harness.verdicts()[-1]
        assert (entry["reason"], entry["worker_id"]) == ("egress.deadline", WORKER)


# --- where to -------------------------------------------------------------------------------------


async def test_messages_may_arrive_byte_by_byte(world):
    reader, writer = await world.harness.connect_socks()
    for byte in GREETING + credentials() + request("plain.example", world.plain.port):
        writer.write(bytes([byte]))
        await writer.drain()
    got = await reader.readexactly(2 + 2 + 10)
    assert got[5] == SUCCEEDED
    writer.write(inner_head(f"plain.example:{world.plain.port}", "GET"))
    assert (await read_to_end(reader)).endswith(b"hello")


async def test_everything_may_arrive_at_once_and_nothing_of_it_is_lost(world):
    reader, writer = await world.harness.connect_socks()
    port = world.plain.port
    head = inner_head(f"plain.example:{port}", "GET")
    writer.write(GREETING + credentials() + request("plain.example", port) + head)
    assert (await read_to_end(reader)).endswith(b"hello")
    assert world.plain.heads == [b"GET /x HTTP/1.1"]


@pytest.mark.parametrize("command", [2, 3], ids=["BIND", "UDP ASSOCIATE"])
async def test_other_commands_are_refused_and_audited(world, command):
    reader, writer = await greeted(world.harness)
    writer.write(request("api.example", 443, command))
    assert (await read_to_end(reader))[:2] == b"\x05\x07"
    entry = world.harness.verdicts()[-1]
    assert (entry["reason"], entry["worker_id"]) == ("egress.protocol_not_supported", WORKER)
    world.nothing_was_dialled()


@pytest.mark.parametrize(
    ("host", "port", "reply", "reason"),
    [
        ("paste.example", 443, NOT_ALLOWED, "host_not_allowed"),
        ("api.example", 22, NOT_ALLOWED, "port_not_allowed"),
        ("plain.example", 81, NOT_ALLOWED, "scheme_not_allowed"),
        ("127.0.0.1", 443, NOT_ALLOWED, "private_target"),
        ("::1", 443, NOT_ALLOWED, "private_target"),
        ("169.254.169.254", 80, NOT_ALLOWED, "metadata_target"),
        ("::ffff:169.254.169.254", 80, NOT_ALLOWED, "metadata_target"),
        (b"169.254.169.254", 80, NOT_ALLOWED, "metadata_target"),
        (b"2852039166", 80, GENERAL_FAILURE, "numeric_host"),
        (b"fe80::1%eth0", 443, GENERAL_FAILURE, "host_malformed"),
        (b"a." * 127 + b"a", 443, GENERAL_FAILURE, "host_malformed"),
        ("203.0.113.9", 443, NOT_ALLOWED, "private_target"),
        ("8.8.8.8", 53, NOT_ALLOWED, "host_not_allowed"),
    ],
)
async def test_a_target_that_is_refused_is_never_looked_up(world, host, port, reply, reason):
    watching = world.core.resolver = Watching(world.core.resolver)
    code, (reader, _) = await asked(world.harness, host, port)
    assert code == reply
    assert await read_to_end(reader) == b""
    assert reasons(world) == [reason]
    assert watching.names == []
    world.nothing_was_dialled()


async def test_an_allowed_name_is_looked_up_once_and_its_answer_is_pinned(world):
    watching = world.core.resolver = Watching(world.core.resolver)
    got = await socks_plain(world)
    assert got.endswith(b"hello")
    assert watching.names == ["plain.example"]
    connect, inner = world.harness.verdicts()
    assert connect["method"] == "CONNECT"
    assert connect["target"] == f"http://plain.example:{world.plain.port}"
    assert inner["target"] == f"http://plain.example:{world.plain.port}/x"
    assert connect["addresses"] == inner["addresses"] == ["127.0.0.1"]


async def test_the_proxys_own_socks_listener_is_never_a_target(world):
    host, port = world.harness.proxy.socks_address
    code, _ = await asked(world.harness, host, port)
    assert code == NOT_ALLOWED
    assert reasons(world) == ["proxy_target"]


async def test_a_metadata_target_quarantines_and_cuts_the_workers_other_connections(world):
    other_reader, _ = await greeted(world.harness)
    code, (reader, _) = await asked(world.harness, "169.254.169.254", 80)
    assert code == NOT_ALLOWED
    assert await read_to_end(reader) == b""
    assert await read_to_end(other_reader) == b""
    assert world.core.view.is_blocked(WORKER)


async def test_a_worker_that_the_fleet_blocks_loses_its_open_tunnel(world):
    code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
    assert code == SUCCEEDED
    world.harness.tell("block", worker_id=WORKER)
    writer.write(inner_head(f"plain.example:{world.plain.port}", "GET"))
    assert await read_to_end(reader) == b""
    world.nothing_was_dialled()


async def test_the_other_workers_tunnel_is_its_own(world):
    reader, writer = await world.harness.connect_socks()
    writer.write(GREETING + credentials(OTHER_LEASE, OTHER_SECRET))
    writer.write(request("plain.example", world.plain.port))
    assert (await reader.readexactly(2 + 2 + 10))[5] == SUCCEEDED
    assert world.harness.verdicts()[-1]["worker_id"] == OTHER_WORKER


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


async def test_an_idle_plain_tunnel_that_has_spoken_is_not_cut_off(tmp_path):
    inject = Injection(deadlines=Deadlines(hello_s=0.05))
    async with chaos(tmp_path, inject) as world:
        authority = f"plain.example:{world.plain.port}"
        code, (reader, writer) = await asked(world.harness, "plain.example", world.plain.port)
        assert code == SUCCEEDED
        raw = f"GET /x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
        writer.write(raw)
        assert await read_reply(reader) is not None
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, passed.set)
        await passed.wait()
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
