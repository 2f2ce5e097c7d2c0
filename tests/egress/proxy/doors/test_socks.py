"""SOCKS5 at the proxy's own door, over real sockets: judged as CONNECT is, and nothing else passes.

Every test asks the upstreams what arrived there.
"""

import pytest

from palyra_egress.proxy.bounds.deadlines import Deadlines
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

    async def resolve(self, host, port, asker=""):
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
