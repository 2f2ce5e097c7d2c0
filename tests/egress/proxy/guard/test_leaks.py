"""Leaks over real sockets: what a worker sends in clear does not arrive, and the worker is caught.

Every test looks at what the upstreams received, and at all that the proxy wrote down.
"""

import base64
import gzip
import json
import random
import zlib
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.egress.credentials.leaving import WRITTEN
from tests.egress.proxy.guard.credential_world import CredentialWorld, Talk, credential_world
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    SECRET,
    WORKER,
    basic,
    binding,
    read_reply,
    read_to_end,
)
from tests.fakes.secrets import SecretsInMemory

TOKEN = "ghp_the-real-token-0123456789"
DECOY = "AKIADECOY0000000QQ"
LEASE_SECRET = "wT5xQ9pLz3" + "k" * 33
POLICY = f"""\
version: 1
name: leaks
rules:
  - id: api
    hosts: [api.example]
    methods: [GET, POST]
    private: [127.0.0.0/8]
    credentials:
      - {{header: authorization, secret: "vault:global/token", format: "Bearer {{secret}}"}}
  - id: other
    hosts: [other.example, .watched.example]
    methods: [GET, POST]
    private: [127.0.0.0/8]
  - id: plain
    hosts: [other.example]
    schemes: [http]
    methods: [GET, POST]
    private: [127.0.0.0/8]
canaries:
  - {{id: decoy-key, value: {DECOY}, owner: security, reason: planted in every sandbox}}
violations: {{quarantine: [credential_leak, canary]}}
profiles: {{test: [api, other, plain]}}
"""
FORGIVING = POLICY.replace("violations: {quarantine: [credential_leak, canary]}\n", "")


@pytest.fixture
async def world(tmp_path: Path, monkeypatch):
    async with credential_world(tmp_path, monkeypatch, POLICY) as made:
        yield made


@pytest.fixture
async def forgiving(tmp_path: Path, monkeypatch):
    async with credential_world(tmp_path, monkeypatch, FORGIVING) as made:
        yield made


def assert_caught(world: CredentialWorld, reason: str, what: str, place: str) -> dict:
    """One violation: audited, in the spool, its worker blocked, and nothing of it written down."""
    (entry,) = [one for one in world.harness.verdicts() if one["reason"] == reason]
    assert (entry["effect"], entry["consequence"]) == ("deny", "quarantine")
    assert (entry["found"], entry["found_in"]) == (what, place)
    (evidence,) = world.harness.core.spool.pending
    assert (evidence.worker_id, evidence.quarantines) == (WORKER, True)
    assert world.harness.core.view.is_blocked(WORKER)
    assert_nothing_is_told(world)
    return entry


def assert_nothing_is_told(world: CredentialWorld) -> None:
    files = [path for path in world.harness.directory.rglob("*") if path.is_file()]
    told = b"".join(path.read_bytes() for path in files if path.name != "policy.yaml").lower()
    payloads = [base64.b64decode(one.envelope.payload) for one in world.harness.core.spool.pending]
    for text in (told, *payloads):
        for secret in (TOKEN, DECOY):
            for spelling in (secret, base64.b64encode(secret.encode()).decode(), quote(secret)):
                assert spelling.lower().encode() not in text.lower()


def arrived(world: CredentialWorld) -> bytes:
    return bytes(world.secure.received + world.plain.received)


HEADS = [
    # path and query, headers, what is found, where
    (f"/x/{TOKEN}", [], "vault:global/token", "target"),
    (f"/x?k={TOKEN}&b=1", [], "vault:global/token", "target"),
    (
        f"/x?k={base64.urlsafe_b64encode(TOKEN.encode()).decode()}",
        [],
        "vault:global/token",
        "target",
    ),
    (f"/x?k={TOKEN.encode().hex().upper()}", [], "vault:global/token", "target"),
    (
        "/x?k=" + "".join(f"%{byte:02x}" for byte in TOKEN.encode()),
        [],
        "vault:global/token",
        "target",
    ),
    (f"/x/{DECOY}", [], "decoy-key", "target"),
    (f"/x?k={DECOY.lower()}", [], "decoy-key", "target"),
    ("/x", [f"X-Anything: {TOKEN}"], "vault:global/token", "headers"),
    ("/x", [f"Authorization: Bearer {TOKEN}"], "vault:global/token", "headers"),
    ("/x", ["Authorization: " + basic("user", TOKEN)], "vault:global/token", "headers"),
    ("/x", [f"Cookie: a=b; s={DECOY}"], "decoy-key", "headers"),
    ("/x", [f"X-{DECOY}: 1"], "decoy-key", "headers"),
    ("/x", ["User-Agent: sk-the-real-key-0123456789"], "a held secret", "headers"),
]


@pytest.mark.parametrize(("target", "headers", "what", "place"), HEADS)
@pytest.mark.parametrize("host", ["api.example", "other.example"])
async def test_a_secret_in_a_head_is_refused_before_anything_leaves(
    world, host, target, headers, what, place
):
    reply = await world.ask(host, target, *headers)
    reason = "egress.canary" if what == "decoy-key" else "egress.credential_leak"
    assert reply is not None and (reply.status, reply.reason) == (403, reason)
    entry = assert_caught(world, reason, what, place)
    assert entry["target"].endswith("/redacted" if place == "target" else "/x")
    assert arrived(world) == b""


async def test_the_violation_names_the_canarys_line(world):
    await world.ask("other.example", f"/{DECOY}")
    entry = assert_caught(world, "egress.canary", "decoy-key", "target")
    line = POLICY.splitlines().index(next(one for one in POLICY.splitlines() if DECOY in one)) + 1
    assert (entry["rule_id"], entry["policy_line"]) == ("decoy-key", line)


@pytest.mark.parametrize("name", [f"{DECOY.lower()}.watched.example", TOKEN.replace("_", "-")])
async def test_a_secret_in_a_name_is_refused_without_a_look_up(world, name):
    looked_up: list[str] = []

    class Watching:
        async def resolve(self, host, port, asker=""):
            looked_up.append(host)
            return ("127.0.0.1",)

        def close(self):
            pass

    world.harness.core.resolver = Watching()
    host = name if "." in name else f"{DECOY.encode().hex()}.watched.example"
    reply, _, _ = await world.harness.tunnel(f"{host}:443")
    assert reply is not None and (reply.status, reply.reason) == (403, "egress.canary")
    entry = assert_caught(world, "egress.canary", "decoy-key", "target")
    assert entry["host"] == "redacted.invalid"
    assert looked_up == []


async def test_a_plain_request_is_looked_through_too(world):
    reply = await world.harness.send(
        f"POST http://other.example/up HTTP/1.1\r\nHost: other.example\r\nX-Note: {DECOY}\r\n"
        f"Proxy-Authorization: {basic()}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert reply is not None and reply.reason == "egress.canary"
    assert arrived(world) == b""


async def test_what_the_proxy_adds_itself_is_no_leak(world):
    reply = await world.ask("api.example", "/x")
    assert reply is not None and reply.status == 200
    assert world.heads[-1]["authorization"] == [f"Bearer {TOKEN}"]
    assert world.harness.core.spool.pending == ()


async def test_a_leak_to_a_host_that_no_rule_allows_is_a_leak_all_the_same(world):
    reply = await world.harness.send(
        f"GET http://nowhere.example/{TOKEN} HTTP/1.1\r\nHost: nowhere.example\r\n"
        f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
    )
    assert reply is not None and reply.reason == "egress.credential_leak"
    assert_caught(world, "egress.credential_leak", "vault:global/token", "target")


async def test_without_a_consequence_a_leak_is_refused_and_costs_nothing(forgiving):
    talk = await forgiving.open("other.example")
    for _ in range(2):
        reply = await talk.ask(f"/{TOKEN}")
        assert reply is not None and reply.reason == "egress.credential_leak"
    assert (reply := await talk.ask("/fine")) is not None and reply.status == 200
    assert forgiving.harness.core.spool.pending == ()
    assert_nothing_is_told(forgiving)


async def test_a_mismatch_with_a_secret_in_its_path_is_written_down_without_it(forgiving):
    reply = await forgiving.harness.send(
        f"GET http://other.example/{TOKEN} HTTP/1.1\r\nHost: evil.example\r\n"
        f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
    )
    assert reply is not None and reply.reason == "egress.authority_mismatch"
    assert forgiving.harness.verdicts()[-1]["target"].endswith("/redacted")
    assert_nothing_is_told(forgiving)


# --- bodies -------------------------------------------------------------------------------------


def chunked(pieces: list[bytes]) -> bytes:
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return b"".join([*framed, b"0\r\n\r\n"])


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def post(talk: Talk, *headers: str) -> None:
    lines = ["POST /up HTTP/1.1", f"Host: {talk.host}", *headers, "", ""]
    talk.writer.write("\r\n".join(lines).encode())


CODED = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("name", sorted(WRITTEN))
async def test_no_complete_secret_arrives_in_a_body(world, name, coding):
    written = WRITTEN[name](DECOY.encode())
    body = CODED[coding](b'{"first": "' + b"." * 500 + b'", "then": "' + written + b'"} and more')
    talk = await world.open("other.example")
    encoding = [f"Content-Encoding: {coding}"] if coding else []
    post(talk, "Transfer-Encoding: chunked", *encoding)
    size = random.choice([1, 7, 50, 100_000])
    talk.writer.write(chunked(cut(body, size)))
    assert await read_to_end(talk.reader) == b""
    await world.secure.wait_until_closed()
    assert_caught(world, "egress.canary", "decoy-key", "body")
    received = arrived(world)
    assert body not in received
    if not coding:
        assert written not in received
    assert b"0\r\n\r\n" not in received.partition(b"\r\n\r\n")[2]
    (transfer,) = [one for one in world.harness.audit() if one["kind"] == "transfer"]
    assert transfer["outcome"] == "egress.canary"


@pytest.mark.parametrize("size", [1, 11, 64])
async def test_a_body_of_a_declared_length_never_ends_at_the_upstream(world, size):
    body = b"a=1&b=" + TOKEN.encode() + b"&c=2"
    talk = await world.open("other.example")
    post(talk, f"Content-Length: {len(body)}")
    for piece in cut(body, size):
        talk.writer.write(piece)
    assert await read_to_end(talk.reader) == b""
    await world.secure.wait_until_closed()
    assert_caught(world, "egress.credential_leak", "vault:global/token", "body")
    assert TOKEN.encode() not in arrived(world)
    assert arrived(world).partition(b"\r\n\r\n")[2] in body[:9]  # its first signs at most


CLEAN = {
    "ordinary": b'{"a": "b\\n", "c": [1, 2, 3]}',
    "ends as a secret begins": b"x=1&k=" + TOKEN[:-1].encode(),
    "ends within an escape": b"100%",
    "a beginning only": TOKEN[:20].encode(),
    "binary": random.Random(7).randbytes(200_000),
    "compressed": gzip.compress(random.Random(8).randbytes(50_000)),
}


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("name", CLEAN)
async def test_a_body_without_a_secret_arrives_whole_and_ends(world, name, framing):
    body, got = CLEAN[name], bytearray()
    world.secure.reads_bodies = True
    talk = await world.open("other.example")
    if framing == "chunked":
        post(talk, "Transfer-Encoding: chunked")
        talk.writer.write(chunked(cut(body, 4099)))
    else:
        post(talk, f"Content-Length: {len(body)}")
        talk.writer.write(body)
    reply = await read_reply(talk.reader)
    assert reply is not None and reply.status == 200
    again = await talk.ask("/after")  # the connection is still in step
    assert again is not None and again.status == 200
    got += bytes(world.secure.received).partition(b"\r\n\r\n")[2]
    if framing == "chunked":
        assert dechunked(bytes(got)) == body
    else:
        assert bytes(got).startswith(body + b"GET /after")


def dechunked(data: bytes) -> bytes:
    out = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        if not int(line, 16):
            return out
        out, data = out + data[: int(line, 16)], data[int(line, 16) + 2 :]


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "what-is-this"])
async def test_a_body_in_an_encoding_we_cannot_read_is_refused_before_it_leaves(world, coding):
    talk = await world.open("other.example")
    post(talk, f"Content-Encoding: {coding}", "Content-Length: 3")
    talk.writer.write(b"abc")
    reply = await read_reply(talk.reader)
    assert reply is not None and (reply.status, reply.reason) == (415, "egress.body_unreadable")
    assert arrived(world) == b""


@pytest.mark.parametrize("body", [gzip.compress(bytes(20 << 20)), b"no gzip at all" * 10])
async def test_a_body_that_cannot_be_read_to_its_end_is_cut(world, body):
    talk = await world.open("other.example")
    post(talk, "Content-Encoding: gzip", f"Content-Length: {len(body)}")
    talk.writer.write(body)
    assert await read_to_end(talk.reader) == b""
    await world.secure.wait_until_closed()
    assert world.harness.verdicts()[-1]["reason"] == "egress.body_unreadable"
    assert body not in arrived(world)


async def test_where_nothing_is_watched_for_every_encoding_passes(tmp_path, monkeypatch):
    bare = (
        "version: 1\nname: bare\nrules: [{id: o, hosts: [other.example], methods: [POST],"
        " private: [127.0.0.0/8]}]\nprofiles: {test: [o]}\n"
    )
    async with credential_world(tmp_path, monkeypatch, bare, secrets=SecretsInMemory({})) as world:
        talk = await world.open("other.example")
        post(talk, "Content-Encoding: br", "Content-Length: 3")
        talk.writer.write(b"abc")
        reply = await read_reply(talk.reader)
        assert reply is not None and reply.status == 200


# --- the lease's own credential -----------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        f"http://{LEASE}:{LEASE_SECRET}@127.0.0.1:8080",
        basic(LEASE, LEASE_SECRET),
        LEASE_SECRET,
    ],
)
@pytest.mark.parametrize("in_body", [False, True])
async def test_the_leases_own_credential_is_a_secret_to_everybody_else(world, sent, in_body):
    world.harness.tell(
        "snapshot",
        bindings=(
            binding(secret=LEASE_SECRET),
            binding("01BX5ZZKBKACTAV9WEVGEMMVRZ", OTHER_LEASE, OTHER_SECRET),
        ),
    )
    talk = await world.open("other.example", credentials=basic(LEASE, LEASE_SECRET))
    if in_body:
        body = json.dumps({"env": {"HTTPS_PROXY": sent}}).encode()
        post(talk, f"Content-Length: {len(body)}")
        talk.writer.write(body)
        assert await read_to_end(talk.reader) == b""
        await world.secure.wait_until_closed()
    else:
        reply = await talk.ask("/", f"X-Env: {sent}")
        assert reply is not None and reply.reason == "egress.credential_leak"
    place = "body" if in_body else "headers"
    assert_caught(world, "egress.credential_leak", "the lease's proxy credential", place)
    assert LEASE_SECRET.encode() not in arrived(world)


async def test_another_workers_leak_quarantines_only_that_worker(world):
    other = await world.open("other.example", credentials=basic(OTHER_LEASE, OTHER_SECRET))
    await world.ask("other.example", f"/{DECOY}")
    reply = await other.ask("/fine")
    assert reply is not None and reply.status == 200
    assert SECRET not in world.harness.proxy.enforcement.settings.audit_file.read_text()


# --- secrets that come and go -------------------------------------------------------------------


async def test_a_secret_is_watched_for_as_soon_as_it_is_held(world):
    talk = await world.open("other.example")
    fresh = "brand-new-secret-value-1234"
    assert (reply := await talk.ask(f"/{fresh}")) is not None and reply.status == 200
    world.secrets.put("vault:global/token", fresh)
    reply = await talk.ask(f"/{fresh}")
    assert reply is not None and reply.reason == "egress.credential_leak"


async def test_a_canary_whose_secret_is_missing_refuses_everything(tmp_path, monkeypatch):
    policy = POLICY.replace(f"value: {DECOY}", "secret: 'vault:canary/x'")
    async with credential_world(tmp_path, monkeypatch, policy) as world:
        reply, _, _ = await world.harness.tunnel("other.example:443")
        assert reply is not None
        assert (reply.status, reply.reason) == (503, "egress.credential_unavailable")
        world.secrets.put("vault:canary/x", DECOY)
        talk = await world.open("other.example")
        reply = await talk.ask(f"/{DECOY}")
        assert reply is not None and reply.reason == "egress.canary"
