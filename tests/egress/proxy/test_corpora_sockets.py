"""The shared corpora's cases that need real sockets, each run or explained in `NOT_OURS`.

Names that a case allows resolve to loopback, and ports 80, 443 and 5000 are dialled at the
recording upstreams, so the cases keep their ports. A case that the policy here would refuse for
another reason than its own proves nothing: `test_the_baseline_is_carried` shows that only the
attack is missing. `STRICTER` names the cases where we refuse what the case tolerates.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator

import pytest

from tests.conformance.cases import ALL, CORPORA
from tests.egress.proxy import lookup_cases
from tests.egress.proxy.corpora_world import (
    AUTHORITY_DIFFERS,
    NOT_OURS,
    OWN_STATUS,
    RUN_KINDS,
    SOCKET_CASES,
    STRICTER,
    Case,
    World,
    ask_inside,
    open_world,
    raw_head,
    runs,
    through_tls,
)
from tests.egress.proxy.guard import credential_cases
from tests.egress.proxy.websocket import websocket_cases
from tests.egress.proxy.websocket.websocket_cases import HANDSHAKE
from tests.fakes.h2_worker import h2_worker
from tests.fakes.proxy_harness import (
    Reply,
    basic,
    read_reply,
    read_to_end,
)
from tests.fakes.upstream import RecordingUpstream

if not ALL:
    pytest.skip(f"the corpora are not at {CORPORA}", allow_module_level=True)


@pytest.fixture
async def world(tmp_path, monkeypatch, request) -> AsyncIterator[World]:
    case = request.node.callspec.params["case"] if hasattr(request.node, "callspec") else {}
    names = case.get("input", {}).get("upstream_cert", "") if case else ""
    async with open_world(tmp_path, monkeypatch, names) as made:
        yield made


def test_every_socket_case_is_run_or_explained():
    ids = {case["id"] for case in SOCKET_CASES}
    not_run = {case["id"] for case in SOCKET_CASES if case["kind"] not in RUN_KINDS}
    assert not_run <= set(NOT_OURS)
    assert set(NOT_OURS) <= ids
    assert set(STRICTER) <= ids - set(NOT_OURS)
    assert set(OWN_STATUS) <= ids - set(NOT_OURS)


async def test_the_baseline_is_carried(tmp_path, monkeypatch):
    async with open_world(tmp_path, monkeypatch, "") as world:
        reply = await world.harness.send(
            raw_head("GET http://allowed.com/ HTTP/1.1", "Host: allowed.com")
        )
        assert reply is not None and reply.status == 200
        inner = await ask_inside(world, "allowed.com", connect="allowed.com:443")
        assert inner is not None and inner.status == 200
        assert (len(world.plain.heads), len(world.secure.heads)) == (1, 1)


# --- raw bytes on the proxy's port ----------------------------------------------------------------


def _authorised(raw: str) -> bytes:
    """The case's bytes with our credentials, in its own line ending, as the only ones."""
    raw = re.sub(r"Proxy-Authorization: [^\r\n]*\r?\n", "", raw)
    first, newline, rest = raw.partition("\n")
    ending = "\r\n" if first.endswith("\r") else "\n"
    text = f"{first}{newline}Proxy-Authorization: {basic()}{ending}{rest}"
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def _headers_of(upstream: RecordingUpstream) -> dict[bytes, bytes]:
    lines = bytes(upstream.received).partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {
        name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)
    }


async def _expect_status(world: World, case: Case, reply: Reply | None) -> None:
    wanted = case["expected"]["status"]
    got = reply.status if reply is not None else None
    if case["id"] in OWN_STATUS and got == OWN_STATUS[case["id"]]:
        pass
    elif wanted == "4xx":
        assert got is not None and 400 <= got < 500
    else:
        assert got == wanted
    assert world.was_refused_in_the_audit()
    if case["expected"].get("upstream_hit") is False:
        world.nothing_arrived()
    else:
        await world.plain.wait_until_closed()
        assert not bytes(world.plain.received).endswith(b"0\r\n\r\n"), "looks complete"


@runs("raw_request")
async def test_a_raw_request(world, case):
    reply = await world.harness.send(_authorised(case["input"]["raw"]))
    expected = case["expected"]
    if case["id"] in STRICTER:
        assert reply is not None and 400 <= reply.status < 500
        world.nothing_arrived()
    elif "status" in expected:
        await _expect_status(world, case, reply)
    else:
        assert reply is not None and reply.status == 200
        headers = _headers_of(world.plain)
        assert headers[b"host"] == b"allowed.com"
        for name in expected.get("upstream_headers_absent", ()):
            ours = name.replace("x-egress-", "x-palyra-")
            assert ours.encode() not in headers


@pytest.mark.parametrize("name", ["X-Palyra-Worker", "X-Palyra-Decision", "Palyra-Worker-Key"])
async def test_headers_in_our_own_name_do_not_leave(tmp_path, monkeypatch, name):
    """What dv-raw-085 and ss-hdr-2 ask for, with our names in place of theirs."""
    async with open_world(tmp_path, monkeypatch, "") as world:
        reply = await world.harness.send(
            raw_head("GET http://allowed.com/ HTTP/1.1", "Host: allowed.com", f"{name}: forged")
        )
        assert reply is not None and reply.status == 200
        assert b"forged" not in bytes(world.plain.received)


@runs("response_header_strip")
async def test_an_upstream_cannot_forge_the_proxys_own_headers(world, case):
    assert case["expected"] == "strip"
    world.plain.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Palyra-Decision: spoofed\r\n"
        b'Proxy-Status: palyra-egress; details="spoofed"\r\nX-Own: kept\r\n\r\n'
    )
    reply = await world.harness.send(
        raw_head("GET http://allowed.com/ HTTP/1.1", "Host: allowed.com")
    )
    assert reply is not None and reply.headers["x-own"] == "kept"
    assert "spoofed" not in str(reply.headers)


@runs("request_header_strip")
async def test_the_proxys_internal_headers_do_not_leave(world, case):
    assert case["expected"] == "strip"
    ours = [
        f"{name.replace('X-Smokescreen-', 'X-Palyra-')}: t"
        for name in case["input"]["request_header"]
    ]
    await world.harness.send(
        raw_head("GET http://allowed.com/ HTTP/1.1", "Host: allowed.com", *ours)
    )
    assert len(world.plain.heads) == 1
    assert b"x-palyra-" not in bytes(world.plain.received).lower()


@runs("host_consistency")
async def test_the_host_that_leaves_is_the_host_of_the_url(world, case):
    assert case["expected"] == "preserve"
    url, host = case["input"]["url"], case["input"]["host_header"]
    reply = await world.harness.send(raw_head(f"GET {url} HTTP/1.1", f"Host: {host}"))
    assert reply is not None and reply.status == 200
    assert _headers_of(world.plain)[b"host"] == host.encode()


@runs("duplicate_host", "obs_fold")
async def test_a_head_that_two_parsers_read_differently(world, case):
    headers = case["input"]["headers"]
    if not any(line.lower().startswith("host:") for line in headers):
        headers = ["Host: allowed.com", *headers]
    reply = await world.harness.send(raw_head("GET http://allowed.com/ HTTP/1.1", *headers))
    assert reply is not None and reply.status == 400
    world.nothing_arrived()


@runs("header_size")
async def test_an_endless_head_is_answered_and_not_kept(world, case):
    assert case["expected"] == "431/close"
    reader, writer = await world.harness.connect()
    writer.write(b"GET http://allowed.com/ HTTP/1.1\r\nHost: allowed.com\r\nX: ")
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            writer.write(b"a" * 65536)
            await writer.drain()
    got = await read_to_end(reader)
    assert got == b"" or got.startswith(b"HTTP/1.1 431 ")
    assert world.harness.verdicts()[-1]["reason"] == "egress.head_too_large"
    world.nothing_arrived()


# --- CONNECT --------------------------------------------------------------------------------------


@runs("connect", "proxy_authority_parse")
async def test_a_connect(world, case):
    given = case["input"]
    target = given.get("target", given.get("authority"))
    if "inside" in given:
        await _connect_inside(world, target)
        return
    if "pipelined" in given:
        await _pipelined_hello(world, target)
        return
    extra = [f"Content-Length: {given['content_length']}"] if "content_length" in given else []
    reply = await world.harness.send(
        raw_head(f"CONNECT {target} HTTP/1.1", f"Host: {given.get('host', target)}", *extra)
    )
    assert reply is not None
    if case["expected"] == "tunnel" and case["id"] not in STRICTER:
        assert reply.status == 200
    else:
        assert 400 <= reply.status < 500
        assert world.was_refused_in_the_audit()
    world.nothing_arrived()


async def _connect_inside(world: World, target: str) -> None:
    streams = await through_tls(world, "allowed.com:443", sni="allowed.com")
    assert streams is not None
    reader, writer = streams
    writer.write(raw_head(f"CONNECT {target} HTTP/1.1", f"Host: {target}"))
    reply = await read_reply(reader)
    assert reply is None or 400 <= reply.status < 500
    world.nothing_arrived()


class MemoryTls:
    """A TLS client whose records the test carries itself."""

    def __init__(self, world: World, sni: str) -> None:
        root = world.harness.proxy.enforcement.authority.root_path
        context = ssl.create_default_context(cafile=str(root))
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=sni)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self._out.read()

    async def get(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Finish the handshake, ask for `/`, and answer with what comes."""
        for step in (
            self.tls.do_handshake,
            self._ask,
            lambda: self.tls.read(65536),
        ):
            while True:
                try:
                    got = step()
                    writer.write(self._out.read())
                    break
                except ssl.SSLWantReadError:
                    writer.write(self._out.read())
                    data = await reader.read(65536)
                    assert data, "the proxy ended the connection"
                    self._in.write(data)
        return bytes(got)

    def _ask(self) -> None:
        self.tls.write(b"GET / HTTP/1.1\r\nHost: allowed.com\r\n\r\n")


async def _pipelined_hello(world: World, target: str) -> None:
    client = MemoryTls(world, "allowed.com")
    reader, writer = await world.harness.connect()
    writer.write(raw_head(f"CONNECT {target} HTTP/1.1", f"Host: {target}") + client.hello)
    reply = await read_reply(reader, has_body=lambda status: status != 200)
    assert reply is not None and reply.status == 200
    assert (await client.get(reader, writer)).startswith(b"HTTP/1.1 200 OK")


# --- TLS in the tunnel ----------------------------------------------------------------------------


def _in_pieces(hello: bytes) -> list[bytes]:
    """The ClientHello in two records, cut into three segments."""
    payload = hello[5:]
    middle = len(payload) // 2
    records = b"".join(
        hello[:3] + len(part).to_bytes(2) + part for part in (payload[:middle], payload[middle:])
    )
    return [records[:1], records[1 : middle // 2], records[middle // 2 :]]


@runs("tls_check")
async def test_a_client_hello(world, case, tmp_path):
    given = case["input"]
    if "ech" in given:
        await lookup_cases.hidden(case, tmp_path / "hidden")
        return
    if "client_hello" in given:
        await _fragmented(world, given["connect"])
        return
    streams = await through_tls(world, given["connect"], sni=given["sni"], alpn=given.get("alpn"))
    if streams is not None:
        reader, writer = streams
        if "alpn" in given:  # speak what was offered: a DNS message over TCP
            writer.write(b"\x00\x1d\x12\x34\x01\x00\x00\x01" + b"\x00" * 24)
        else:
            writer.write(b"GET / HTTP/1.1\r\nHost: allowed.com\r\n\r\n")
        reply = await read_reply(reader)
        carried = reply is not None and reply.status == 200
    else:
        carried = False
    allowed = {case["expected"], case.get("acceptable", case["expected"])}
    assert ("allow" if carried else "deny") in allowed
    assert bool(world.inner_requests()) is carried


async def _fragmented(world: World, authority: str) -> None:
    client = MemoryTls(world, "allowed.com")
    reader, writer = await world.harness.connect()
    writer.write(raw_head(f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"))
    reply = await read_reply(reader, has_body=lambda status: status != 200)
    assert reply is not None and reply.status == 200
    for piece in _in_pieces(client.hello):
        writer.write(piece)
        await writer.drain()
        for _ in range(20):  # let the proxy read this piece by itself
            await asyncio.sleep(0)
    assert (await client.get(reader, writer)).startswith(b"HTTP/1.1 200 OK")


@runs("sni_check", "sni_host")
async def test_a_server_name_that_is_not_the_tunnels(world, case):
    assert case["expected"] == "deny"
    given = case["input"]
    connect = given.get("connect") or given.get("connect_host")
    if connect is None:  # TLS straight at the proxy's port, without a CONNECT
        reader, writer = await world.harness.connect()
        writer.write(MemoryTls(world, "allowed.com").hello)
        assert await read_to_end(reader) == b""
        writer.close()
    else:
        authority = connect if ":" in connect else f"{connect}:443"
        sni = given.get("sni") or given["client_hello_sni"]
        assert await through_tls(world, authority, sni=sni) is None
    assert world.was_refused_in_the_audit()
    world.nothing_arrived()


@runs("inner_host_mismatch")
async def test_a_host_inside_the_tunnel_that_is_not_the_tunnels(world, case):
    assert case["expected"] == "deny"
    given = case["input"]
    host = given.get("inner_host") or given["inner_request"].partition("Host: ")[2].split("\r\n")[0]
    reply = await ask_inside(world, host, connect=given["connect"])
    assert reply is not None and reply.reason == "egress.authority_mismatch"
    world.nothing_arrived()


@runs("h2_stream", "h2_host_vs_authority")
async def test_a_stream_of_http2(world, case):
    """Each after a stream that is carried on the same connection: only the attack differs."""
    assert case["expected"] == "deny"
    given = dict(case["input"].get("headers", case["input"]))
    given.pop("upstream", None)
    async with h2_worker(world.harness, "allowed.com:443") as worker:
        worker.authority = "allowed.com"
        assert (await worker.get("/")).status == 200
        fields = {":method": "GET", ":scheme": "https", ":path": "/", **given}
        pseudo_first = sorted(fields.items())
        answer = await worker.answer(worker.ask(pseudo_first))
        refused_with = 421 if case["id"] in AUTHORITY_DIFFERS else 400
        assert answer.status == refused_with
    assert world.was_refused_in_the_audit()
    assert len(world.inner_requests()) == 1


# --- upgrades -------------------------------------------------------------------------------------


@runs("streaming", "streaming_upgrade", "is_websocket_upgrade", "ws_upgrade_response")
async def test_an_upgrade(world, case, tmp_path, monkeypatch):
    given = case["input"]
    if "ws_open" in given or 200 in (given.get("upstream"), given.get("upstream_status")):
        monkeypatch.undo()  # those are dialled where they are
        await websocket_cases.play(case, tmp_path / "sockets")
        return
    headers = given.get("headers") or {
        "Upgrade": given.get("upgrade", "websocket"),
        "Connection": given.get("connection", "Upgrade"),
    }
    lines = [f"{name}: {value}" for name, value in (HANDSHAKE | headers).items()]
    reply = await world.harness.send(
        raw_head("GET http://allowed.com/ HTTP/1.1", "Host: allowed.com", *lines)
    )
    assert reply is not None and reply.reason == "egress.upgrade_not_allowed"
    assert case["expected"] == "deny" or case["id"] in STRICTER
    world.nothing_arrived()


@runs("upgrade_101_other")
async def test_an_upgrade_that_nobody_asked_for_opens_no_raw_tunnel(world, case):
    assert case["expected"] == "rawtcp=false"
    assert world.harness.proxy.master.options.rawtcp is False
    world.plain.answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\n\r\nraw bytes"
    reply = await world.harness.send(
        raw_head("GET http://allowed.com/ HTTP/1.1", "Host: allowed.com")
    )
    assert reply is not None and reply.reason == "egress.upstream_protocol"
    await world.plain.wait_until_closed()


# --- look-ups -------------------------------------------------------------------------------------


@runs("dns_resolution")
async def test_a_look_up(case, tmp_path, monkeypatch):
    await lookup_cases.resolved(case, tmp_path, monkeypatch)


# --- credentials ----------------------------------------------------------------------------------


@runs("credential_swap")
async def test_a_placeholder_is_swapped_where_the_policy_says(case, tmp_path, monkeypatch):
    await credential_cases.swapped(case, tmp_path, monkeypatch)


@runs("credential_injection")
async def test_a_credential_goes_to_its_host_only(case, tmp_path, monkeypatch):
    await credential_cases.injected(case, tmp_path, monkeypatch)
