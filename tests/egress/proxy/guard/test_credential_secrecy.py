"""Who could see a credential and does not: workers, logs, addons, readers of what we write."""

import base64
from collections.abc import AsyncIterator

import pytest
from mitmproxy import flow as mitmproxy_flow
from mitmproxy.proxy import commands

from tests.egress.proxy.guard.credential_world import (
    HOLDER,
    KEY,
    PASSWORD,
    REAL,
    TOKEN,
    CredentialWorld,
    credential_world,
)
from tests.fakes.proxy_harness import Injection, read_to_end


@pytest.fixture
async def world(tmp_path, monkeypatch) -> AsyncIterator[CredentialWorld]:
    async with credential_world(tmp_path, monkeypatch) as made:
        yield made


# --- what comes back ------------------------------------------------------------------------------


def _echoing(*fields: bytes, phrase: bytes = b"OK") -> bytes:
    lines = [b"HTTP/1.1 200 " + phrase, *fields, b"Content-Length: 2", b"", b"ok"]
    return b"\r\n".join(lines)


async def test_a_server_that_repeats_a_credential_tells_the_worker_nothing(world):
    full = f"Bearer {TOKEN}".encode()
    world.replies = [
        _echoing(
            b"X-Clear: " + full,
            b"Location: https://other.example/?t=" + TOKEN.replace("-", "%2d").encode(),
            b"X-Base64: " + base64.b64encode(b"user:" + TOKEN.encode()),
            b"X-Hex: " + KEY.encode().hex().encode(),
            b"Set-Cookie: t=" + KEY.encode() + b"; Path=/",
            KEY.encode() + b": name",
            b"X-Kept: plain",
            phrase=b"hello " + KEY.encode(),
        )
    ]
    talk = await world.open("api.example")
    talk.writer.write(b"GET / HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n")
    answer = await read_to_end(talk.reader)

    assert answer.startswith(b"HTTP/1.1 200 hello [redacted]\r\n")
    for spelling in (
        TOKEN.encode(),
        KEY.encode(),
        TOKEN.replace("-", "%2d").encode(),
        base64.b64encode(b"user:" + TOKEN.encode()),
        KEY.encode().hex().encode(),
    ):
        assert spelling not in answer
    assert b"set-cookie: t=[redacted]; path=/\r\n" in answer.lower()
    assert b"X-Kept: plain\r\n" in answer
    assert answer.endswith(b"\r\n\r\nok")


async def test_an_error_after_the_credential_left_tells_nothing(world):
    world.replies = [
        b"HTTP/1.1 200 OK\r\nX: " + TOKEN.encode() + b"\0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\nX: " + TOKEN.encode() + b"\r\n\r\n",
        TOKEN.encode() + b" is no status line\r\n\r\n",
    ]
    for _ in range(3):
        talk = await world.open("api.example")
        talk.writer.write(b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n")
        answer = await read_to_end(talk.reader)
        assert answer.startswith(b"HTTP/1.1 502 Palyra: egress.")
        assert TOKEN.encode() not in answer
    assert len(world.heads) == 3


# --- who else could see it ------------------------------------------------------------------------


async def test_nothing_that_the_proxy_writes_down_holds_a_secret(world, caplog):
    caplog.set_level("DEBUG")
    world.replies = [_echoing(b"X: " + TOKEN.encode())]
    await world.ask("api.example")
    await world.ask("missing.example")
    world.secrets.put("env:KEY", "changed-key-0123456789")
    await world.ask("api.example")

    told = world.everything_told() + caplog.text.encode()
    for secret in [*REAL, b"changed-key-0123456789"]:
        assert secret not in told
        assert base64.b64encode(secret) not in told
    entries = [one for one in world.harness.verdicts() if one.get("rule_id") == "api"]
    assert [one.get("credentials") for one in entries if one["method"] == "GET"] == [
        ["authorization from vault:global/token", "x-api-key from env:KEY"]
    ] * 2
    assert [one.get("credentials") for one in entries if one["method"] == "CONNECT"] == [None] * 2


async def test_no_hook_no_addon_and_no_flow_ever_sees_a_secret(tmp_path, monkeypatch):
    seen: list[str] = []
    hooks: set[str] = set()

    async def watch(hook: commands.StartHook) -> None:
        hooks.add(hook.name)
        for subject in hook.args():
            seen.append(repr(vars(subject)))
            if isinstance(subject, mitmproxy_flow.Flow):
                seen.append(repr(subject.get_state()))

    inject = Injection(chain=watch)
    async with credential_world(tmp_path, monkeypatch, inject=inject) as world:
        inject.proxy = world.harness.proxy
        await world.ask("api.example", "/", f"Authorization: {HOLDER}")
        await world.ask("swap.example", "/", f"Authorization: {HOLDER}")
        await world.ask("basic.example")

        assert len(world.heads) == 3
        assert {"requestheaders", "request", "responseheaders", "response"} <= hooks
        forms = [*REAL, base64.b64encode(f"x-access-token:{PASSWORD}".encode())]
        assert not [secret for secret in forms if secret in "".join(seen).encode()]


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
async def test_an_addon_that_sets_a_bound_header_after_the_verdict_breaks_the_seal(
    tmp_path, monkeypatch, name
):
    async def forge(hook: commands.StartHook) -> None:
        if hook.name == "request":
            (flow,) = hook.args()
            flow.request.headers[name] = "forged"

    async with credential_world(tmp_path, monkeypatch, inject=Injection(chain=forge)) as world:
        assert await world.ask("api.example") is None
        assert world.heads == []


async def test_what_a_judgement_and_an_exchange_show_holds_no_secret(world):
    shown: list[str] = []
    judge = type(world.harness.core).judge

    async def watching(core, *args):
        judgement = await judge(core, *args)
        shown.append(repr(judgement))
        return judgement

    type(world.harness.core).judge = watching
    try:
        await world.ask("api.example")
    finally:
        type(world.harness.core).judge = judge

    assert any("SecretValue(redacted)" in text for text in shown)
    assert not [secret for secret in REAL if secret.decode() in "".join(shown)]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: " + TOKEN.encode() + b"\r\n\r\n" + OK
TRAILERS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    b"2\r\nok\r\n0\r\nX: " + TOKEN.encode() + b"\r\n\r\n"
)
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: " + TOKEN.encode() + b"\r\n\r\nraw"


@pytest.mark.parametrize("answer", [INTERIM, TRAILERS, UPGRADE], ids=["103", "trailers", "101"])
async def test_an_echo_outside_of_a_final_head_does_not_reach_the_worker(world, answer):
    world.replies = [answer]
    talk = await world.open("api.example")
    talk.writer.write(b"GET / HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n")

    got = await read_to_end(talk.reader)
    assert TOKEN.encode() not in got
    assert got.startswith(b"HTTP/1.1 ")
    assert len(world.heads) == 1


async def test_a_lookup_that_fails_ends_the_connection_and_its_words_are_told_nowhere(
    world, caplog
):
    def failing(_ref):
        raise RuntimeError(f"could not read {TOKEN}")

    talk = await world.open("api.example")
    world.secrets.get = failing
    talk.writer.write(b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n")

    assert await read_to_end(talk.reader) == b""
    assert world.secure.connections == 0
    assert TOKEN not in caplog.text
    assert TOKEN.encode() not in world.everything_told()
    assert world.harness.verdicts()[-1]["reason"] == "egress.internal"
