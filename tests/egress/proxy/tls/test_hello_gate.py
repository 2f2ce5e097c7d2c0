"""A tunnel that is passed on: the name in a second ClientHello is held to the rule of the first."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.proxy.tls.client_hello import HelloMalformed, hello_end
from palyra_egress.proxy.tls.hello_gate import CHANGE_CIPHER_SPEC, MAX_HELD_BYTES, HelloGate
from palyra_egress.reasons import Reason
from tests.egress.proxy.tunnels.tunnel_world import World, open_world
from tests.fakes.client_hello import (
    APPLICATION,
    ECH,
    GREASE_ECH,
    extension,
    hello,
    names,
    record,
    vector,
)
from tests.fakes.proxy_harness import read_to_end

P256: Final = b"\x00\x17"
_POINT: Final = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
)
_COMMON: Final = (
    extension(10, vector(P256, 2)),  # supported groups
    extension(13, vector(b"\x04\x03\x08\x04", 2)),  # signature algorithms
)


def first_hello(host: bytes = b"t.example") -> bytes:
    """Offers a group and no key for it, so that a server must ask again."""
    return hello(host, *_COMMON, extension(51, vector(b"", 2)), offered=(0x0304,))


def second_hello(host: bytes | None, *more: bytes) -> bytes:
    key = extension(51, vector(P256 + vector(_POINT, 2), 2))
    return hello(host, *_COMMON, key, *more, offered=(0x0304,))


# --- over sockets, with OpenSSL as the server -----------------------------------------------------


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


def names_that_arrive(world: World) -> list[str | None]:
    """From now on, every name that the server was asked for."""
    seen: list[str | None] = []

    def note(_socket: Any, name: str | None, _context: ssl.SSLContext) -> None:
        seen.append(name)

    world.context.sni_callback = note
    return seen


async def test_openssl_itself_goes_by_the_name_in_the_second_hello(world):
    """Without a proxy in between; were it otherwise, the tests below would show nothing."""
    seen = names_that_arrive(world)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.secure.port)
    writer.write(first_hello())
    await reader.readexactly(5)
    writer.write(second_hello(b"seen.example"))
    await reader.read(1 << 16)
    await reader.read(1 << 16)
    writer.close()
    assert seen == ["t.example", "seen.example"]


async def test_a_server_that_asks_for_another_hello_gets_it(world):
    """A real client, whose key is for a group that the server does not take."""
    world.context.set_ecdh_curve("secp384r1")
    seen = names_that_arrive(world)
    authority = f"t.example:{world.secure.port}"
    _, reader, writer = await world.harness.tunnel(authority, roots=world.roots)
    assert seen == ["t.example", "t.example"]
    writer.write(f"GET /x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    assert (await read_to_end(reader, b"hello")).endswith(b"hello")


SECOND: Final = {
    "another name": (second_hello(b"seen.example"), "authority_mismatch"),
    "no name": (second_hello(None), "sni_missing"),
    "a second name": (
        second_hello(b"t.example", names(b"seen.example")),
        "authority_mismatch",
    ),
    "another name behind a change of cipher": (
        CHANGE_CIPHER_SPEC + second_hello(b"seen.example"),
        "authority_mismatch",
    ),
    "a name that is hidden": (
        second_hello(b"t.example", extension(ECH, GREASE_ECH)),
        "ech_not_allowed",
    ),
    "no hello at all": (record(b"\x0b\x00\x00\x01\x00"), "request_malformed"),
    "application data": (APPLICATION, "request_malformed"),
    "a good one and more in its record": (
        record(second_hello(b"t.example")[5:] + second_hello(b"seen.example")[5:]),
        "request_malformed",
    ),
}


@pytest.mark.parametrize("is_early", [False, True], ids=["when asked", "before it is asked"])
@pytest.mark.parametrize("case", SECOND)
async def test_another_name_in_a_second_hello_reaches_no_server(world, case, is_early):
    sent, reason = SECOND[case]
    seen = names_that_arrive(world)
    target = f"t.example:{world.secure.port}"
    reply, reader, writer = await world.harness.connect_to(
        target, after=first_hello() + (sent if is_early else b"")
    )
    assert reply is not None and reply.status == 200
    if not is_early:
        assert (await reader.readexactly(6))[5] == 2  # the server asks again
        writer.write(sent)
    await read_to_end(reader)
    await world.harness.core.connections.wait_until_empty(60)
    assert seen == ["t.example"]
    assert world.reasons() == ["allowed", reason]


async def test_a_hello_with_more_in_its_record_reaches_no_server(world):
    seen = names_that_arrive(world)
    both = record(first_hello()[5:] + second_hello(b"seen.example")[5:])
    target = f"t.example:{world.secure.port}"
    _, reader, _ = await world.harness.connect_to(target, after=both)
    await read_to_end(reader)
    assert seen == []
    assert world.reasons() == ["allowed", "request_malformed"]


# --- the gate itself ------------------------------------------------------------------------------


def gate(refusal: Reason | None = None) -> HelloGate:
    return HelloGate(lambda _message: refusal)


def test_nothing_but_the_hello_leaves_before_the_server_has_answered():
    made = gate()
    assert made.push(first_hello() + APPLICATION) == first_hello()  # early data waits
    assert made.push(APPLICATION) == b""
    assert (made.let_go(), made.holds) == (b"", True)
    made.answered(asks_again=False)
    assert made.let_go() == APPLICATION * 2
    assert (made.push(APPLICATION), made.holds) == (APPLICATION, False)


def test_what_is_held_is_bounded():
    made = gate()
    made.push(first_hello())
    made.push(APPLICATION)
    assert not made.is_full
    made.push(APPLICATION * (MAX_HELD_BYTES // len(APPLICATION)))
    assert made.is_full


@given(st.lists(st.integers(0, 2000), max_size=8), st.sampled_from([b"", CHANGE_CIPHER_SPEC]))
def test_a_second_hello_leaves_whole_however_it_is_cut(cuts, before):
    whole = before + second_hello(b"t.example") + APPLICATION
    made, left = gate(), b""
    made.push(first_hello())
    made.answered(asks_again=True)
    edges = [0, *sorted(cut % len(whole) for cut in cuts), len(whole)]
    for start, end in itertools.pairwise(edges):
        passed = made.push(whole[start:end])
        assert isinstance(passed, bytes)
        left += passed
    assert left == whole


def test_a_second_hello_that_does_not_end_is_given_up():
    made = gate()
    made.push(first_hello())
    made.answered(asks_again=True)
    assert made.push(b"\x16\x03\x01\x00\x01\x01" * 40) is Reason.REQUEST_MALFORMED


def test_a_second_hello_is_asked_about_and_nothing_of_a_refused_one_leaves():
    made = gate(Reason.AUTHORITY_MISMATCH)
    assert made.push(first_hello()) == first_hello()  # that one was asked about before
    made.answered(asks_again=True)
    assert made.push(second_hello(b"seen.example")) is Reason.AUTHORITY_MISMATCH


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 40])
def test_a_hello_in_two_records_ends_with_the_second(cut):
    message = first_hello()[5:]
    data = record(message[:cut]) + record(message[cut:])
    assert hello_end(data + APPLICATION) == len(data)


@pytest.mark.parametrize("data", [b"", first_hello()[:-1], record(b"") + first_hello()])
def test_what_is_no_whole_hello_has_no_end(data):
    with pytest.raises(HelloMalformed):
        hello_end(data)
