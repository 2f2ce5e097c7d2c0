"""Calls that wait: their places are few, and a caller that is gone keeps none of them."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from palyra_fleet.api.gatekeeper import MAX_LONG_CALLS_PER_CALLER
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.policy_models import PolicyPoll, PolicyStanding
from palyra_fleet.wire.request_proof import HEADER, prove
from tests.fakes.raw_http import open_connection
from tests.fakes.served_fleet import ServedFleet
from tests.fakes.until import until

STANDING = PolicyStanding(
    policy_digest="a" * 64, name="egress", mode="enforce", loaded_at_unix_ms=1, rules=0, profiles=()
)
POLL = PolicyPoll(standing=STANDING, wait_ms=3_000).model_dump_json().encode()
CALLS = [
    ("next_question", "POST", "/v1/proxy/policy-questions", POLL),
    ("orders", "GET", "/v1/worker/orders?wait_ms=30000", b""),
]


def signed(key: SigningKey, method: str, target: str, body: bytes) -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: fleet",
        f"{HEADER}: {prove(key, method, target, body, now_unix_ms())}",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(("name", "method", "target", "body"), CALLS)
async def test_a_poll_that_was_broken_off_keeps_no_place(
    fleet: ServedFleet,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    method: str,
    target: str,
    body: bytes,
) -> None:
    waiting: set[asyncio.Task[Any] | None] = set()

    async def for_ever(*asked: object) -> None:
        del asked
        waiting.add(asyncio.current_task())
        await asyncio.Event().wait()

    monkeypatch.setattr(fleet.service, name, for_ever)
    key = fleet.proxy_key if name == "next_question" else fleet.worker_key
    async with AsyncExitStack() as still_open:
        for number in range(MAX_LONG_CALLS_PER_CALLER):
            _, writer = await open_connection(fleet.socket_path)
            still_open.callback(writer.close)
            writer.write(signed(key, method, target, body))
            await until("it waits", lambda number=number: len(waiting) == number + 1)  # type: ignore[misc]
        reader, writer = await open_connection(fleet.socket_path)
        still_open.callback(writer.close)
        writer.write(signed(key, method, target, body))
        assert b" 429 " in await reader.readline()
    await until("none waits", lambda: all(one is None or one.done() for one in waiting))
    _, writer = await open_connection(fleet.socket_path)
    writer.write(signed(key, method, target, body))
    await until("one waits again", lambda: len(waiting) == MAX_LONG_CALLS_PER_CALLER + 1)
    writer.close()
