"""Limits of profile and file over real sockets: each is enforced, and the strictest ends it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.proxy.bounds.budgets import ByteBudgets, Direction
from palyra_egress.verdict import Account, Limits
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    Harness,
    Reply,
    basic,
    binding,
    proxy_harness,
)
from tests.fakes.upstream import RecordingUpstream, recording_upstream

POLICY = """\
version: 1
name: test
{file}
rules:
  - id: one
    hosts: [one.example]
    schemes: [http]
    ports: [{port}]
    methods: [GET, POST]
    private: [127.0.0.0/8]
    {rule}
  - id: two
    hosts: [two.example]
    schemes: [http]
    ports: [{port}]
    methods: [GET, POST]
    private: [127.0.0.0/8]
profiles:
  test: {{rules: [one, two], {profile}}}
  other: [one, two]
"""
HOSTS = "127.0.0.1 one.example two.example\n"


@dataclass
class World:
    harness: Harness
    upstream: RecordingUpstream

    async def ask(self, host: str = "one", credentials: str = "", raw: str = "") -> Reply | None:
        """GET, or what `raw` says after the request line and Host; None if it was cut."""
        authority = f"{host}.example:{self.upstream.port}"
        method = "POST" if raw else "GET"
        head = f"{method} http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
        head += f"Proxy-Authorization: {credentials or basic()}\r\n{raw or '\r\n'}"
        try:
            return await self.harness.send(head.encode())
        except OSError:
            return None

    async def told(self, host: str = "one", credentials: str = "", raw: str = "") -> str:
        """200, the reason of a refusal, or `cut`."""
        reply = await self.ask(host, credentials, raw)
        if reply is None or (reply.status == 200 and reply.body != b"hello"):
            return "cut"
        return "200" if reply.status == 200 else reply.reason.removeprefix("egress.")


@asynccontextmanager
async def world(
    directory: Path, *, profile: str = "limits: {}", file: str = "", rule: str = ""
) -> AsyncIterator[World]:
    async with recording_upstream() as upstream:
        text = POLICY.format(port=upstream.port, profile=profile, file=file, rule=rule)
        async with proxy_harness(directory, text, HOSTS) as harness:
            yield World(harness, upstream)


def posting(size: int) -> str:
    return f"Content-Length: {size}\r\n\r\n" + "x" * size


def chunked(size: int) -> str:
    return f"Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{'x' * size}\r\n0\r\n\r\n"


@pytest.mark.parametrize("level", ["profile", "file"])
async def test_requests_a_minute_are_counted_over_all_rules_and_per_worker(tmp_path, level):
    given_limits = {level: "limits: {requests_per_minute: 2}"}
    async with world(tmp_path, **given_limits) as proxy:
        assert [await proxy.told(host) for host in ("one", "two", "one")] == [
            "200",
            "200",
            "rate_limited",
        ]
        assert await proxy.told("one", basic(OTHER_LEASE, OTHER_SECRET)) == "200"
        assert len(proxy.upstream.heads) == 3


async def test_a_profiles_rate_does_not_hold_for_another_profile(tmp_path):
    async with world(tmp_path, profile="limits: {requests_per_minute: 1}") as proxy:
        assert [await proxy.told(), await proxy.told()] == ["200", "rate_limited"]
        proxy.harness.tell("bind", bindings=(binding(profile="other", fence=1),))
        assert await proxy.told() == "200"


async def test_of_two_rates_the_stricter_holds(tmp_path):
    async with world(
        tmp_path,
        profile="limits: {requests_per_minute: 9}",
        file="limits: {requests_per_minute: 1}",
    ) as proxy:
        assert [await proxy.told(), await proxy.told()] == ["200", "rate_limited"]


@pytest.mark.parametrize("level", ["profile", "file"])
@pytest.mark.parametrize("key", ["bytes_per_hour", "response_bytes_per_hour"])
async def test_an_hour_of_bytes_is_cut_in_the_stream_and_then_refuses(tmp_path, level, key):
    given_limits = {level: f"limits: {{{key}: 12}}"}
    async with world(tmp_path, **given_limits) as proxy:
        assert await proxy.told("one") == "200"  # 5 bytes
        assert await proxy.told("two") == "200"  # 10, of another rule
        assert await proxy.told("one") == "cut"  # the third answer crosses the hour
        assert await proxy.told("two") == "budget_spent"
        assert proxy.upstream.connections == 3
        assert await proxy.told("one", basic(OTHER_LEASE, OTHER_SECRET)) == "200"


@pytest.mark.parametrize("level", ["profile", "file", "rule"])
async def test_an_hour_of_sent_bytes_ends_uploads_and_no_download(tmp_path, level):
    given_limits = {level: "limits: {request_bytes_per_hour: 8}"}
    async with world(tmp_path, **given_limits) as proxy:
        assert await proxy.told(raw=posting(6)) == "200"
        assert await proxy.told(raw=posting(3)) == "budget_spent"  # declared: refused before
        assert await proxy.told() == "200"
        assert proxy.upstream.received.count(b"x" * 3) == 2
        assert await proxy.told(raw=chunked(40)) == "cut"  # not declared: cut while it streams
        assert b"x" * 7 not in proxy.upstream.received
        assert await proxy.told(raw=posting(1)) == "budget_spent"
        assert await proxy.told() == "200"
        if level == "rule":
            assert await proxy.told("two", raw=posting(9)) == "200"


@pytest.mark.parametrize("level", ["profile", "file"])
async def test_an_hour_both_ways_counts_what_is_sent_too(tmp_path, level):
    given_limits = {level: "limits: {bytes_per_hour: 12}"}
    async with world(tmp_path, **given_limits) as proxy:
        assert await proxy.told(raw=posting(6)) == "200"  # 6 and 5
        assert await proxy.told(raw=posting(1)) == "budget_spent"


async def test_a_rule_of_the_profile_cannot_lift_the_profiles_sizes(tmp_path):
    async with world(
        tmp_path,
        profile="limits: {max_request_bytes: 4, max_response_bytes: 4}",
        rule="limits: {max_request_bytes: 1KiB, max_response_bytes: 1KiB}",
    ) as proxy:
        assert await proxy.told(raw=posting(5)) == "request_too_large"
        assert await proxy.told() == "response_too_large"
        proxy.harness.tell("bind", bindings=(binding(profile="other"),))
        assert await proxy.told(raw=posting(5)) == "200"


async def test_the_refusal_is_audited_under_the_worker_and_its_profile(tmp_path):
    async with world(tmp_path, profile="limits: {requests_per_minute: 1}") as proxy:
        assert [await proxy.told(), await proxy.told()] == ["200", "rate_limited"]
        entry = proxy.harness.verdicts()[-1]
        assert (entry["reason"], entry["profile"]) == ("egress.rate_limited", "test")
        assert entry["lease_id"] == LEASE


HOURS = st.builds(
    lambda both, out, come: Limits(
        bytes_per_hour=both, request_bytes_per_hour=out, response_bytes_per_hour=come
    ),
    *(st.none() | st.integers(0, 30) for _ in range(3)),
)
STREAM = st.lists(
    st.tuples(st.sampled_from([Direction.OUT, Direction.IN]), st.integers(1, 8)), max_size=12
)


@given(st.lists(HOURS, max_size=3), STREAM)
def test_an_exchange_goes_on_exactly_as_long_as_the_strictest_account_has_room(
    limits: list[Limits], stream: list[tuple[Direction, int]]
) -> None:
    accounts = [Account(f"a{number}", one) for number, one in enumerate(limits)]
    together = ByteBudgets()
    sent = got = 0
    for direction, count in stream:
        sent += count if direction is Direction.OUT else 0
        got += count if direction is Direction.IN else 0
        fits = all(
            limit is None or used <= limit
            for one in limits
            for limit, used in (
                (one.bytes_per_hour, sent + got),
                (one.request_bytes_per_hour, sent if direction is Direction.OUT else 0),
                (one.response_bytes_per_hour, got if direction is Direction.IN else 0),
            )
        )
        assert together.spend(accounts, "w", direction, count, 0) is fits


@given(HOURS, HOURS, STREAM, st.integers(0, 5))
def test_another_account_never_makes_room(
    own: Limits, more: Limits, stream: list[tuple[Direction, int]], declared: int
) -> None:
    alone, both = ByteBudgets(), ByteBudgets()
    one, two = Account("one", own), Account("two", more)
    for direction, count in stream:
        was = alone.spend([one], "w", direction, count, 0)
        now = both.spend([one, two], "w", direction, count, 0)
        assert was or not now
    has_room = both.have_room([one, two], "w", declared, 0)
    assert alone.have_room([one], "w", declared, 0) or not has_room
