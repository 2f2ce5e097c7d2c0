"""The proxy over real sockets: what a worker sees, and what really reaches the upstream."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.policy.load import load_policy
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    OTHER_WORKER,
    WORKER,
    basic,
    binding,
    proxy_harness,
    read_reply,
)
from tests.fakes.upstream import recording_upstream

POLICY = """\
version: 1
name: test
rules:
  - id: api
    hosts: [api.example]
    ports: [{port}]
    methods: [GET, POST]
    paths: [/open/**]
    private: [127.0.0.0/8]
    limits: {{max_request_bytes: 1KiB, max_response_bytes: 64KiB}}
  - id: plain
    hosts: [plain.example]
    schemes: [http]
    ports: [{plain}]
    methods: [GET, POST]
    private: [127.0.0.0/8]
profiles:
  test: [api, plain]
violations:
  quarantine: [private_target, metadata_target, authority_mismatch, foreign_credentials]
"""
HOSTS = "127.0.0.1 api.example plain.example hidden.example\n"


@pytest.fixture
async def world(tmp_path: Path):
    ca = UpstreamCa.create(tmp_path / "ca")
    async with (
        recording_upstream(ca.server_context("api.example")) as secure,
        recording_upstream() as plain,
        proxy_harness(
            tmp_path / "proxy",
            POLICY.format(port=secure.port, plain=plain.port),
            HOSTS,
            ca.ca_file,
        ) as harness,
    ):
        yield harness, secure, plain


def get(path: str, host: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


async def test_an_allowed_request_inside_inspected_tls_reaches_the_upstream_once(world):
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    reply, reader, writer = await harness.tunnel(authority)
    assert reply is not None and reply.status == 200
    writer.write(get("/open/thing?x=1", authority))
    answer = await read_reply(reader)
    assert answer is not None and (answer.status, answer.body) == (200, b"hello")
    assert secure.heads == [b"GET /open/thing?x=1 HTTP/1.1"]
    assert b"proxy-authorization" not in bytes(secure.received).lower()
    entries = harness.verdicts()
    assert [(e["method"], e["reason"]) for e in entries] == [
        ("CONNECT", "egress.allowed"),
        ("GET", "egress.allowed"),
    ]
    assert entries[1]["rule_id"] == "api"
    assert "x=1" not in harness.proxy.enforcement.settings.audit_file.read_text()


async def test_a_refusal_inside_the_tunnel_is_readable_and_the_connection_stays_usable(world):
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    _, reader, writer = await harness.tunnel(authority)
    writer.write(get("/closed", authority))
    refused = await read_reply(reader)
    assert refused is not None
    assert (refused.status, refused.reason) == (403, "egress.path_not_allowed")
    assert b"egress.path_not_allowed" in refused.body
    writer.write(get("/open/now", authority))
    allowed = await read_reply(reader)
    assert allowed is not None and allowed.status == 200
    assert secure.heads == [b"GET /open/now HTTP/1.1"]


async def test_a_host_no_rule_names_is_refused_at_connect_without_a_look_up(world):
    harness, _, _ = world
    looked_up: list[str] = []
    resolver = harness.core.resolver

    class Watching:
        async def resolve(self, host, port, asker=""):
            looked_up.append(host)
            return await resolver.resolve(host, port)

        def close(self):
            resolver.close()

    harness.core.resolver = Watching()
    reply, _, _ = await harness.tunnel("other.example:443")
    assert reply is not None
    assert (reply.status, reply.reason) == (403, "egress.host_not_allowed")
    assert looked_up == []


async def test_no_credentials_is_407_and_wrong_ones_too(world):
    harness, _, plain = world
    raw = get(f"http://plain.example:{plain.port}/", f"plain.example:{plain.port}")
    reply = await harness.send(raw)
    assert reply is not None and (reply.status, reply.reason) == (407, "egress.no_identity")
    wrong = basic(secret="w" * 43)
    authorised = raw.replace(b"\r\n\r\n", f"\r\nProxy-Authorization: {wrong}\r\n\r\n".encode())
    reply = await harness.send(authorised)
    assert reply is not None and (reply.status, reply.reason) == (407, "egress.bad_credentials")
    assert plain.connections == 0


async def test_a_plain_request_is_forwarded_in_origin_form_without_hop_by_hop_headers(world):
    harness, _, plain = world
    authority = f"plain.example:{plain.port}"
    reply = await harness.send(
        f"GET http://{authority}/a?b HTTP/1.1\r\nHost: {authority}\r\nKeep-Alive: 3\r\n"
        f"Connection: x-drop\r\nX-Drop: 1\r\nX-Keep: 2\r\n"
        f"Proxy-Connection: keep-alive\r\nProxy-Authorization: {basic()}\r\n\r\n".encode()
    )
    assert reply is not None and reply.status == 200
    head = bytes(plain.received).lower()
    assert plain.heads == [b"GET /a?b HTTP/1.1"]
    assert b"x-keep: 2" in head
    assert b"via: 1.1 palyra-egress" in head
    for gone in (b"proxy-", b"x-drop", b"keep-alive"):
        assert gone not in head


async def test_a_violation_quarantines_and_cuts_every_open_connection_of_the_worker(world):
    harness, secure, plain = world
    authority = f"api.example:{secure.port}"
    _, reader, writer = await harness.tunnel(authority)
    writer.write(get("/open/1", authority))
    assert (await read_reply(reader)) is not None
    _, other_reader, other_writer = await harness.tunnel(
        authority, credentials=basic(OTHER_LEASE, OTHER_SECRET)
    )

    refused, _, _ = await harness.tunnel("169.254.169.254:80")
    assert refused is not None
    assert (refused.status, refused.reason) == (403, "egress.metadata_target")
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    async with asyncio.timeout(60):
        await secure.closed.wait()
    again, _, _ = await harness.tunnel(authority)
    assert again is not None and (again.status, again.reason) == (403, "egress.quarantined")
    other_writer.write(get("/open/2", authority))
    unharmed = await read_reply(other_reader)
    assert unharmed is not None and unharmed.status == 200
    (evidence,) = harness.core.spool.pending
    assert (evidence.worker_id, evidence.quarantines) == (WORKER, True)
    assert plain.connections == 0


async def test_an_ended_lease_cuts_its_open_connection(world):
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    _, reader, writer = await harness.tunnel(authority)
    writer.write(get("/open/1", authority))
    assert (await read_reply(reader)) is not None
    harness.tell("unbind", lease_id=LEASE)
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    reply, _, _ = await harness.tunnel(authority)
    assert reply is not None and (reply.status, reply.reason) == (403, "egress.no_lease")


@pytest.mark.parametrize(
    ("sni", "reason"),
    [("other.example", "egress.authority_mismatch"), (None, "egress.sni_missing")],
)
async def test_a_client_hello_that_names_another_or_no_server_is_reset(world, sni, reason):
    harness, secure, _ = world
    with pytest.raises((ConnectionError, OSError)):
        await harness.tunnel(f"api.example:{secure.port}", sni=sni)
    assert harness.verdicts()[-1]["reason"] == reason
    assert secure.connections == 0


async def test_a_host_header_that_differs_from_the_tunnel_is_a_mismatch(world):
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    _, reader, writer = await harness.tunnel(authority)
    writer.write(get("/open/1", "evil.example"))
    reply = await read_reply(reader)
    assert reply is not None and reply.reason == "egress.authority_mismatch"
    assert secure.heads == []
    assert harness.verdicts()[-1]["consequence"] == "quarantine"


async def test_a_request_body_over_its_budget_is_refused_before_or_cut_while_streaming(world):
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    _, reader, writer = await harness.tunnel(authority)
    writer.write(
        f"POST /open/up HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 2048\r\n\r\n".encode()
        + b"x" * 2048
    )
    reply = await read_reply(reader)
    assert reply is not None and (reply.status, reply.reason) == (413, "egress.request_too_large")
    assert secure.heads == []

    _, reader, writer = await harness.tunnel(authority)
    writer.write(
        f"POST /open/up HTTP/1.1\r\nHost: {authority}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    for _ in range(4):
        writer.write(b"200\r\n" + b"@" * 512 + b"\r\n")
    assert await read_reply(reader) is None
    assert bytes(secure.received).count(b"@") <= 1024


async def test_a_server_that_answers_early_is_not_our_fault(world):
    """The answer arrives; a body that goes on is cut off, and no fault of the proxy is audited."""
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    secure.answer = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
    _, reader, writer = await harness.tunnel(authority)
    writer.write(
        f"POST /open/up HTTP/1.1\r\nHost: {authority}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode()
    )
    reply = await read_reply(reader)
    assert reply is not None and reply.status == 403
    with contextlib.suppress(ConnectionError):
        writer.write(b"3\r\ndef\r\n0\r\n\r\n")
        async with asyncio.timeout(60):
            assert await reader.read() == b""
    assert bytes(secure.received).count(b"def") == 0
    assert [entry["reason"] for entry in harness.verdicts()] == ["egress.allowed"] * 2


async def test_a_response_over_its_budget_is_refused_or_cut(world):
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    secure.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"z" * 100_000
    _, reader, writer = await harness.tunnel(authority)
    writer.write(get("/open/big", authority))
    reply = await read_reply(reader)
    assert reply is not None and (reply.status, reply.reason) == (502, "egress.response_too_large")

    chunk = b"4000\r\n" + b"z" * 0x4000 + b"\r\n"
    secure.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 8
    _, reader, writer = await harness.tunnel(authority)
    writer.write(get("/open/big", authority))
    got = b""
    async with asyncio.timeout(60):
        try:
            while data := await reader.read(65536):
                got += data
        except OSError:
            pass
    assert got.count(b"z") <= 64 * 1024


async def test_an_upgrade_is_refused_and_an_unasked_101_is_not_passed_on(world):
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    _, reader, writer = await harness.tunnel(authority)
    writer.write(
        f"GET /open/ws HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
    )
    reply = await read_reply(reader)
    assert reply is not None and reply.reason == "egress.upgrade_not_allowed"
    assert secure.heads == []
    secure.answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\n\r\n"
    writer.write(get("/open/x", authority))
    reply = await read_reply(reader)
    assert reply is not None and (reply.status, reply.reason) == (502, "egress.upstream_protocol")


async def test_an_upstream_with_an_untrusted_certificate_is_not_spoken_to(world, tmp_path):
    harness, _, _ = world
    stranger = UpstreamCa.create(tmp_path / "stranger")
    async with recording_upstream(stranger.server_context("api.example")) as impostor:
        policy = POLICY.format(port=impostor.port, plain=1)
        harness.core.service.replace_policy(load_policy(policy.encode(), "policy.yaml"))
        authority = f"api.example:{impostor.port}"
        _, reader, writer = await harness.tunnel(authority)
        writer.write(get("/open/secret", authority))
        reply = await read_reply(reader)
        assert reply is not None and (reply.status, reply.reason) == (502, "egress.upstream_tls")
        assert bytes(impostor.received) == b""


async def test_another_workers_credentials_on_this_connection_quarantine_its_worker(world):
    harness, _, plain = world
    authority = f"plain.example:{plain.port}"
    reader, writer = await harness.connect()
    reply = None
    for credentials, status in ((basic(), 200), (basic(OTHER_LEASE, OTHER_SECRET), 403)):
        writer.write(
            f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
            f"Proxy-Authorization: {credentials}\r\n\r\n".encode()
        )
        reply = await read_reply(reader)
        assert reply is not None and reply.status == status
    assert reply is not None and reply.reason == "egress.foreign_credentials"
    assert len(plain.heads) == 1
    (evidence,) = harness.core.spool.pending
    assert evidence.worker_id == WORKER
    assert not harness.core.view.is_blocked(OTHER_WORKER)


async def test_another_lease_of_the_same_worker_on_one_connection_is_only_refused(world):
    harness, _, plain = world
    newer = "01BX5ZZKBKACTAV9WEVGEMMVS9"
    harness.tell("bind", bindings=(binding(lease=newer, fence=1),))
    authority = f"plain.example:{plain.port}"
    reader, writer = await harness.connect()
    reply = None
    for credentials in (basic(), basic(newer)):
        writer.write(
            f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
            f"Proxy-Authorization: {credentials}\r\n\r\n".encode()
        )
        reply = await read_reply(reader)
    assert reply is not None and reply.reason == "egress.identity_changed"
    assert harness.core.spool.pending == ()


async def test_another_workers_block_does_not_touch_this_one(world):
    harness, secure, _ = world
    harness.tell("block", worker_id=OTHER_WORKER)
    reply, _, _ = await harness.tunnel(f"api.example:{secure.port}")
    assert reply is not None and reply.status == 200
    blocked, _, _ = await harness.tunnel(
        f"api.example:{secure.port}", credentials=basic(OTHER_LEASE, OTHER_SECRET)
    )
    assert blocked is not None and blocked.reason == "egress.quarantined"


async def test_a_lease_whose_time_is_over_is_refused_without_a_word_from_the_fleet(world):
    harness, secure, _ = world
    harness.tell("bind", bindings=(binding(lives_ms=-1),))
    reply, _, _ = await harness.tunnel(f"api.example:{secure.port}")
    assert reply is not None and reply.status == 403
    assert reply.reason in ("egress.lease_expired", "egress.no_lease")


async def test_a_stale_view_refuses_everybody(world):
    harness, secure, _ = world
    harness.core.view.max_age_ms = 0
    await asyncio.sleep(0.01)
    reply, _, _ = await harness.tunnel(f"api.example:{secure.port}")
    assert reply is not None and (reply.status, reply.reason) == (503, "fleet.view_stale")


async def test_a_view_that_goes_stale_cuts_what_is_streaming(world):
    """No order to stop could reach the proxy any more, so nothing may go on."""
    harness, secure, _ = world
    authority = f"api.example:{secure.port}"
    _, reader, writer = await harness.tunnel(authority)
    writer.write(get("/open/1", authority))
    assert (await read_reply(reader)) is not None
    await asyncio.sleep(0.2)  # the proxy has looked at a fresh view at least once
    harness.core.view.max_age_ms = 0
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


async def test_a_fleet_that_went_back_in_time_is_refused(world):
    harness, secure, _ = world
    harness.seq = -5
    harness.tell("tick")
    reply, _, _ = await harness.tunnel(f"api.example:{secure.port}")
    assert reply is not None and (reply.status, reply.reason) == (503, "fleet.epoch_rollback")
