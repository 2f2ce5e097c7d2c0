"""Only a pinned address is dialled, and only a pinned peer is spoken to."""

import asyncio
import select
import socket
import struct

import aiohappyeyeballs
import pytest

from palyra_egress.destination.resolver import ResolutionRefused
from palyra_egress.proxy.sockets.pinned_dial import DialRefused, dial_pinned
from palyra_egress.reasons import Reason
from tests.egress.proxy.lanes import Lane, chaos, inspected, plain
from tests.fakes.upstream import recording_upstream

LANES: tuple[Lane, ...] = (plain, inspected)


async def test_the_pinned_address_is_dialled():
    async with recording_upstream() as upstream:
        _, writer = await dial_pinned(("127.0.0.1",), upstream.port)
        assert writer.get_extra_info("peername") == ("127.0.0.1", upstream.port)
        writer.close()


async def test_a_dead_pinned_address_is_passed_over_for_a_living_one():
    async with recording_upstream() as upstream:
        _, writer = await dial_pinned(("127.0.0.2", "127.0.0.1"), upstream.port)
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
        writer.close()


async def test_nothing_but_pinned_addresses_is_tried():
    async with recording_upstream() as upstream:
        with pytest.raises(DialRefused) as refused:
            await dial_pinned(("127.0.0.2",), upstream.port)
        assert refused.value.reason is Reason.UPSTREAM_UNREACHABLE
        assert upstream.connections == 0


async def test_an_address_that_does_not_answer_is_given_up_at_the_deadline(monkeypatch):
    async def never(*_args, **_more):
        await asyncio.Event().wait()

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", never)
    with pytest.raises(DialRefused) as refused:
        await dial_pinned(("127.0.0.1",), 1, deadline_s=0.01)
    assert refused.value.reason is Reason.UPSTREAM_UNREACHABLE


def _dial_elsewhere(monkeypatch, address: str, port: int) -> None:
    """Whatever is asked for, the connection goes to `address`."""

    async def elsewhere(*_args, **_more):
        return await _connected(address, port)

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", elsewhere)


async def _connected(address: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address, port))
    return sock


async def test_a_peer_that_was_not_pinned_is_dropped_without_a_byte(monkeypatch):
    async with recording_upstream(host="127.0.0.2") as other:
        _dial_elsewhere(monkeypatch, "127.0.0.2", other.port)
        with pytest.raises(DialRefused) as refused:
            await dial_pinned(("127.0.0.1",), other.port)
        assert refused.value.reason is Reason.NOT_PINNED
        await other.wait_until_closed()
        assert bytes(other.received) == b""


async def test_a_peer_that_resets_at_once_is_unreachable_and_not_a_fault(monkeypatch):
    """Its name cannot be asked for any more (ENOTCONN), so it cannot be checked either."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def reset(*_args, **_more):
            sock = await _connected(*listener.getsockname())
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            select.select([sock], [], [], 5)
            return sock

        monkeypatch.setattr(aiohappyeyeballs, "start_connection", reset)
        with pytest.raises(DialRefused) as refused:
            await dial_pinned(("127.0.0.1",), listener.getsockname()[1])
        assert refused.value.reason is Reason.UPSTREAM_UNREACHABLE


# --- through the proxy ----------------------------------------------------------------------------


class FaultyResolver:
    """Answers, or fails, as the test says."""

    def __init__(self, outcome):
        self.outcome = outcome

    async def resolve(self, _host, _port, asker=""):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        if self.outcome is None:
            await asyncio.Event().wait()
        return self.outcome

    def close(self):
        """Nothing is open."""


OUTCOMES = {
    "raises": (RuntimeError("injected"), ""),
    "refuses": (ResolutionRefused(Reason.RESOLUTION_FAILED), "egress.resolution_failed"),
    "is cancelled": (asyncio.CancelledError(), ""),
    "hangs": (None, "egress.deadline"),
    "has no answer": ((), "egress.resolution_empty"),
    "answers nonsense": (("not an address",), "egress."),
    "answers a private address of another net": (("10.0.0.1",), "egress.private_target"),
    "answers the metadata service": (("169.254.169.254",), "egress.metadata_target"),
    "answers private and public at once": (("203.0.114.9", "10.0.0.1"), "egress.mixed_answer"),
    "answers allowed and metadata at once": (("127.0.0.1", "169.254.169.254"), "egress."),
    "answers a mapped metadata address": (("::ffff:169.254.169.254",), "egress."),
}


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_resolver_that_goes_wrong_lets_nothing_be_dialled(tmp_path, outcome, lane):
    answer, reason = OUTCOMES[outcome]
    async with chaos(tmp_path) as world:
        world.core.resolver.close()
        world.core.resolver = FaultyResolver(answer)
        world.core.judge_deadline_s = 0.1
        got = await lane(world)
        assert b" 200 OK" not in got
        assert world.harness.verdicts()[-1]["reason"].startswith(reason)
        await world.everything_is_closed()
        world.nothing_was_dialled()


@pytest.mark.parametrize("lane", LANES)
async def test_a_peer_that_was_not_pinned_gets_no_request(tmp_path, monkeypatch, lane):
    async with recording_upstream(host="127.0.0.2") as other, chaos(tmp_path) as world:
        _dial_elsewhere(monkeypatch, "127.0.0.2", other.port)
        assert b"egress.not_pinned" in await lane(world)
        await other.wait_until_closed()
        assert bytes(other.received) == b""
        world.nothing_was_dialled()


@pytest.mark.parametrize("lane", LANES)
async def test_a_dial_that_fails_unexpectedly_ends_the_connection(tmp_path, monkeypatch, lane):
    async def broken(*_args, **_more):
        raise ValueError("injected")

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", broken)
    async with chaos(tmp_path) as world:
        assert b" 200 OK" not in await lane(world)
        await world.everything_is_closed()
        world.nothing_was_dialled()
        assert world.harness.verdicts()[-1]["reason"] == "egress.internal"


async def test_a_name_that_changes_its_address_after_connect_is_dialled_where_it_was_judged(
    tmp_path,
):
    async with chaos(tmp_path) as world, recording_upstream(host="127.0.0.2") as rebound:
        authority = f"api.example:{world.secure.port}"
        _, reader, writer = await world.harness.tunnel(authority)
        world.core.resolver = FaultyResolver(("127.0.0.2",))
        writer.write(f"GET /x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert (world.secure.connections, rebound.connections) == (1, 0)
