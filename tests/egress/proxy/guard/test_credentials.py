"""Bound credentials over real sockets: what the upstream received, and what nobody else saw."""

import base64
from collections.abc import AsyncIterator

import pytest

from palyra_egress.credentials.binding import SecretSource
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.policy.load import load_policy
from tests.egress.proxy.guard.credential_world import (
    HOLDER,
    KEY,
    PASSWORD,
    POLICY,
    REAL,
    SECRETS,
    TOKEN,
    CredentialWorld,
    ask_plain,
    credential_world,
)
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    WORKER,
    basic,
    read_reply,
    read_to_end,
)
from tests.fakes.secrets import SecretsInMemory


@pytest.fixture
async def world(tmp_path, monkeypatch) -> AsyncIterator[CredentialWorld]:
    async with credential_world(tmp_path, monkeypatch) as made:
        yield made


def of_user(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


# --- what the upstream receives -------------------------------------------------------------------


async def test_an_allowed_request_leaves_with_its_rules_credentials(world):
    reply = await world.ask("api.example")

    assert reply is not None and reply.status == 200
    assert world.heads[0]["authorization"] == [f"Bearer {TOKEN}"]
    assert world.heads[0]["x-api-key"] == [KEY]


async def test_what_the_worker_sent_under_a_bound_name_does_not_leave(world):
    await world.ask(
        "api.example",
        "/",
        "Authorization: Bearer my-own-token",
        "AUTHORIZATION: Bearer another-of-mine",
        "X-Api-Key: my-own-key",
        "X_Api_Key: my-own-key",
        "X-Other: stays",
    )

    (head,) = world.heads
    assert head["authorization"] == [f"Bearer {TOKEN}"]
    assert head["x-api-key"] == [KEY]
    assert "x_api_key" not in head
    assert head["x-other"] == ["stays"]
    assert b"my-own" not in bytes(world.secure.received)


async def test_basic_is_made_of_the_policys_user_and_the_secret(world):
    await world.ask("basic.example")

    assert world.heads[0]["authorization"] == [of_user(f"x-access-token:{PASSWORD}")]


async def test_a_body_leaves_unchanged_beside_its_credential(world):
    talk = await world.open("api.example")
    talk.writer.write(
        b"POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n"
    )
    reply = await talk.ask("/second")

    assert reply is not None
    assert b"Transfer-Encoding: chunked" in bytes(world.secure.received)
    assert b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n" in bytes(world.secure.received)
    assert world.heads[0]["authorization"] == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize(
    ("sent", "leaves"),
    [
        (f"Bearer {HOLDER}", f"Bearer {TOKEN}"),
        (f"token {HOLDER}", f"token {TOKEN}"),
        (of_user(f"git:{HOLDER}"), of_user(f"git:{TOKEN}")),
    ],
)
async def test_a_placeholder_is_swapped_in_its_header_and_nowhere_else(world, sent, leaves):
    path = f"/?t={HOLDER}"
    await world.ask("swap.example", path, f"Authorization: {sent}", f"X-Copy: {HOLDER}")

    (head,) = world.heads
    assert head["authorization"] == [leaves]
    assert head["x-copy"] == [HOLDER]
    assert world.secure.heads == [f"GET {path} HTTP/1.1".encode()]


async def test_a_header_of_the_workers_own_where_a_placeholder_belongs_is_refused(world):
    talk = await world.open("swap.example")
    refused = await talk.ask("/", "Authorization: Bearer my-own-token")
    allowed = await talk.ask("/", f"Authorization: Bearer {HOLDER}")
    without = await talk.ask("/")

    assert refused is not None and allowed is not None and without is not None
    assert (refused.status, refused.reason) == (403, "egress.credential_header_not_allowed")
    assert (allowed.status, without.status) == (200, 200)
    assert [head.get("authorization") for head in world.heads] == [[f"Bearer {TOKEN}"], None]


# --- where nothing is added -----------------------------------------------------------------------


async def test_only_the_deciding_rules_credentials_are_added(world):
    await world.ask("api.example", "/open/x", "Authorization: Bearer my-own-token")
    await world.ask("other.example", "/", "Authorization: Bearer my-own-token")

    for head in world.heads:
        assert head["authorization"] == ["Bearer my-own-token"]
        assert "x-api-key" not in head
    assert not [secret for secret in REAL if secret in bytes(world.secure.received)]


async def test_nothing_is_added_over_plain_http(world):
    reply = await ask_plain(world, "api.example", "/")

    assert reply is not None and reply.status == 200
    assert "authorization" not in world.heads[0]
    assert not [secret for secret in REAL if secret in bytes(world.plain.received)]


async def test_a_rule_that_opens_both_schemes_behind_the_readers_back_adds_nothing(world):
    """No file says this; the proxy does not count on it."""
    policy = world.harness.core.service.policy
    plain, api = policy.rules["plain"], policy.rules["api"]
    plain.credentials = api.credentials

    reply = await ask_plain(world, "api.example", "/")

    assert reply is not None and reply.reason == "egress.scheme_not_allowed"
    assert world.plain.connections == 0


async def test_what_only_observing_lets_pass_gets_no_credential(world):
    passed = await world.ask("watched.example", "/other")
    allowed = await world.ask("watched.example", "/allowed")

    assert passed is not None and allowed is not None
    assert (passed.status, allowed.status) == (200, 200)
    assert [head.get("authorization") for head in world.heads] == [None, [TOKEN]]


async def test_a_redirect_takes_no_credential_along(world):
    world.replies = [
        b"HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\n" + b"Content-Length: 0\r\n\r\n"
    ]
    found = await world.ask("api.example")
    assert found is not None and found.headers["location"] == "https://other.example/"

    followed = await world.ask("other.example")
    nowhere = await world.harness.tunnel("evil.example:443")

    assert followed is not None and followed.status == 200
    assert "authorization" not in world.heads[1] and "x-api-key" not in world.heads[1]
    assert nowhere[0] is not None and nowhere[0].reason == "egress.host_not_allowed"


async def test_a_server_that_cannot_be_verified_sees_no_credential(tmp_path, monkeypatch):
    stranger = UpstreamCa.create(tmp_path / "stranger")
    async with credential_world(tmp_path, monkeypatch, issuer=stranger) as world:
        reply = await world.ask("api.example")

        assert reply is not None and reply.reason == "egress.upstream_tls"
        assert world.heads == []


async def test_a_server_with_the_certificate_of_another_host_sees_no_credential(
    tmp_path, monkeypatch
):
    async with credential_world(tmp_path, monkeypatch, certified=("other.example",)) as world:
        wrong = await world.ask("api.example")
        right = await world.ask("other.example")

        assert wrong is not None and wrong.reason == "egress.upstream_tls"
        assert right is not None and right.status == 200
        assert [head.get("authorization") for head in world.heads] == [None]


# --- a secret that is not there -------------------------------------------------------------------


async def test_a_missing_secret_refuses_and_nothing_leaves(world):
    reply = await world.ask("missing.example", "/", "Cookie: session=my-own")

    assert reply is not None
    assert (reply.status, reply.reason) == (503, "egress.credential_unavailable")
    assert world.secure.connections == 0
    (entry,) = [one for one in world.harness.verdicts() if one["method"] == "GET"]
    assert entry["credentials"] == ["cookie from kv:secret/team#cookie"]
    assert (entry["rule_id"], entry["class"]) == ("missing", "infra")


async def test_without_any_source_of_secrets_every_binding_refuses(tmp_path, monkeypatch):
    async with credential_world(tmp_path, monkeypatch, secrets=SecretsInMemory()) as world:
        reply = await world.ask("api.example")

        assert reply is not None and reply.reason == "egress.credential_unavailable"
        assert world.secure.connections == 0


async def test_a_source_that_the_operator_does_not_allow_refuses(tmp_path, monkeypatch):
    only_vault = SecretsInMemory(dict(SECRETS), frozenset({SecretSource.VAULT}))
    async with credential_world(tmp_path, monkeypatch, secrets=only_vault) as world:
        reply = await world.ask("basic.example")

        assert reply is not None
        assert (reply.status, reply.reason) == (403, "egress.credential_source_not_allowed")
        assert world.secure.connections == 0


async def test_a_secret_that_could_end_a_header_is_never_sent(world):
    world.secrets.put("vault:global/token", f"{TOKEN}\r\nX-Evil: 1")

    reply = await world.ask("api.example")

    assert reply is not None and reply.reason == "egress.credential_unavailable"
    assert world.secure.connections == 0


async def test_a_missing_secret_costs_no_request_of_the_rules_rate(tmp_path, monkeypatch):
    policy = POLICY.replace("max_response_bytes: 64KiB", "requests_per_minute: 1")
    async with credential_world(tmp_path, monkeypatch, policy) as world:
        world.secrets.take_away("env:KEY")
        missing = await world.ask("api.example")
        world.secrets.put("env:KEY", KEY)
        there = await world.ask("api.example")

        assert missing is not None and there is not None
        assert (missing.status, there.status) == (503, 200)


# --- change, and other workers --------------------------------------------------------------------


async def test_a_changed_secret_is_used_from_the_next_request_on(world):
    talk = await world.open("api.example")
    await talk.ask("/one")
    world.secrets.put("vault:global/token", "a-new-token-9876543210")
    await talk.ask("/two")
    world.secrets.take_away("vault:global/token")
    refused = await talk.ask("/three")

    assert [head["authorization"] for head in world.heads] == [
        [f"Bearer {TOKEN}"],
        ["Bearer a-new-token-9876543210"],
    ]
    assert world.secure.connections == 2, "a server connection is for one credential"
    assert refused is not None and refused.reason == "egress.credential_unavailable"


async def test_a_changed_policy_changes_the_credential_of_the_next_request(world):
    talk = await world.open("api.example")
    await talk.ask("/one")
    changed = POLICY.replace('"vault:global/token", format: "Bearer {secret}"', '"env:KEY"')
    world.harness.core.service.replace_policy(load_policy(changed.encode(), "policy.yaml"))
    await talk.ask("/two")

    assert [head["authorization"] for head in world.heads] == [[f"Bearer {TOKEN}"], [KEY]]


WITHOUT = POLICY.replace(', format: "Bearer {secret}"', "")
RENAMED = POLICY.replace("id: api", "id: api-renamed").replace("test: [api,", "test: [api-renamed,")


@pytest.mark.parametrize(("changed", "goes_on"), [(WITHOUT, False), (RENAMED, True)])
async def test_an_open_exchange_ends_when_its_rule_binds_another_credential(
    world, changed, goes_on
):
    world.replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12345"]
    talk = await world.open("api.example")
    talk.writer.write(b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n")
    assert (await talk.reader.readuntil(b"12345")).startswith(b"HTTP/1.1 200 OK")

    world.harness.core.service.replace_policy(load_policy(changed.encode(), "policy.yaml"))
    world.harness.core.connections.review()

    revoked = [one for one in world.harness.audit() if one["kind"] == "revoked"]
    assert bool(revoked) is not goes_on
    if not goes_on:
        assert await read_to_end(talk.reader) == b""
        await world.secure.wait_until_closed()


async def test_two_workers_never_share_an_upstream_connection(world):
    one = await world.open("api.example")
    other = await world.open("api.example", basic(OTHER_LEASE, OTHER_SECRET))
    for talk in (one, other, one, other):
        reply = await talk.ask("/")
        assert reply is not None and reply.status == 200

    first, second, third, fourth = world.places
    assert (first, second) == (third, fourth)
    assert first != second
    assert world.secure.connections == 2


async def test_a_quarantine_ends_the_connection_that_carries_credentials(world):
    talk = await world.open("api.example")
    await talk.ask("/")

    world.harness.tell("block", worker_id=WORKER)

    assert await read_to_end(talk.reader) == b""
    await world.secure.wait_until_closed()
    reply, _, _ = await world.harness.tunnel("api.example:443")
    assert reply is not None and reply.reason == "egress.quarantined"
    assert len(world.heads) == 1


async def test_a_lease_that_ends_ends_its_credentials(world):
    talk = await world.open("api.example")
    await talk.ask("/")

    world.harness.tell("unbind", lease_id=LEASE)

    assert await read_to_end(talk.reader) == b""
    await world.secure.wait_until_closed()
    reply, _, _ = await world.harness.tunnel("api.example:443")
    assert reply is not None and reply.reason == "egress.no_lease"
    assert len(world.heads) == 1


RAW = {
    "Connection names a bound header": b"GET / HTTP/1.1\r\nHost: api.example\r\n"
    b"Connection: X-Api-Key\r\nX-Api-Key: my-own\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: api.example\r\n\r\n",
    "an empty value": b"GET / HTTP/1.1\r\nHost: api.example\r\nAuthorization:\r\n\r\n",
    "bytes that are no text": b"GET / HTTP/1.1\r\nHost: api.example\r\nCookie: \xff\r\n"
    b"Authorization: \xff\xfe\r\n\r\n",
    "a body on demand": b"POST / HTTP/1.1\r\nHost: api.example\r\nExpect: 100-continue\r\n"
    b"Content-Length: 2\r\n\r\nhi",
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
async def test_however_a_worker_asks_its_rules_credentials_stand_there_once(world, raw):
    talk = await world.open("api.example")
    talk.writer.write(raw)
    reply = await read_reply(talk.reader)

    assert reply is not None and reply.status in (100, 200)
    if reply.status == 100:
        reply = await read_reply(talk.reader)
        assert reply is not None and reply.status == 200
    (head,) = world.heads
    assert (head["authorization"], head["x-api-key"]) == ([f"Bearer {TOKEN}"], [KEY])
    assert b"my-own" not in bytes(world.secure.received)


async def test_of_two_pipelined_requests_each_leaves_with_its_own_rules_credentials(world):
    talk = await world.open("api.example")
    talk.writer.write(
        b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n"
        b"GET /open/x HTTP/1.1\r\nHost: api.example\r\n\r\n"
    )
    for _ in range(2):
        reply = await read_reply(talk.reader)
        assert reply is not None and reply.status == 200

    assert [head.get("authorization") for head in world.heads] == [[f"Bearer {TOKEN}"], None]
    assert world.secure.connections == 2, "a server connection is for one credential"
