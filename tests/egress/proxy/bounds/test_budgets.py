"""Budgets of a rule: bytes per hour and its own request rate, counted and enforced."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.proxy.bounds.budgets import MAX_LEDGERS, STEP_MS, ByteBudgets
from tests.fakes.proxy_harness import (
    OTHER_LEASE,
    OTHER_SECRET,
    Harness,
    Reply,
    basic,
    proxy_harness,
)
from tests.fakes.upstream import RecordingUpstream, recording_upstream

HOUR_MS = 60 * STEP_MS


def test_bytes_of_one_key_add_up_and_do_not_touch_another():
    budgets = ByteBudgets()
    assert budgets.take("a/r", 100, 0) == 100
    assert budgets.take("a/r", 50, 10) == 150
    assert budgets.spent("b/r", 10) == 0


def test_what_is_older_than_an_hour_is_forgotten():
    budgets = ByteBudgets()
    budgets.take("a/r", 100, 0)
    assert budgets.spent("a/r", HOUR_MS) == 100  # the step is still partly inside
    assert budgets.spent("a/r", HOUR_MS + STEP_MS) == 0


def test_the_oldest_account_goes_when_there_are_too_many():
    budgets = ByteBudgets()
    for number in range(MAX_LEDGERS + 1):
        budgets.take(str(number), 1, 0)
    assert budgets.spent("0", 0) == 0
    assert budgets.spent("1", 0) == 1


@given(
    st.lists(st.tuples(st.integers(0, 20 * 60_000), st.integers(1, 1000)), min_size=1, max_size=40)
)
def test_the_sum_is_never_less_than_what_passed_in_the_last_hour(steps: list[tuple[int, int]]):
    budgets = ByteBudgets()
    now, passed = 0, []
    for wait_ms, count in steps:
        now += wait_ms
        passed.append((now, count))
        told = budgets.take("a/r", count, now)
        really = sum(n for at, n in passed if now - at < HOUR_MS)
        at_most = sum(n for at, n in passed if now - at < HOUR_MS + 2 * STEP_MS)
        assert really <= told <= at_most


POLICY = """\
version: 1
name: test
rules:
  - id: counted
    hosts: [counted.example]
    schemes: [http]
    ports: [{port}]
    private: [127.0.0.0/8]
    limits: {{bytes_per_hour: 12, requests_per_minute: 4}}
  - id: free
    hosts: [free.example]
    schemes: [http]
    ports: [{port}]
    private: [127.0.0.0/8]
profiles:
  test: [counted, free]
"""


async def ask(
    harness: Harness, upstream: RecordingUpstream, host: str, credentials: str
) -> Reply | None:
    authority = f"{host}:{upstream.port}"
    return await harness.send(
        f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
        f"Proxy-Authorization: {credentials}\r\n\r\n".encode()
    )


async def test_a_rules_hour_of_bytes_is_kept_per_worker_and_rule(tmp_path: Path):
    async with recording_upstream() as upstream:
        hosts = "127.0.0.1 counted.example free.example\n"
        async with proxy_harness(tmp_path, POLICY.format(port=upstream.port), hosts) as harness:
            first = await ask(harness, upstream, "counted.example", basic())  # 5 bytes
            second = await ask(harness, upstream, "counted.example", basic())  # 10
            assert first is not None and second is not None
            assert (first.status, second.status) == (200, 200)
            try:  # the third response crosses the budget while it streams: it is cut
                third = await ask(harness, upstream, "counted.example", basic())
            except OSError:
                third = None
            assert third is None or third.body != b"hello"
            refused = await ask(harness, upstream, "counted.example", basic())
            assert refused is not None
            assert (refused.status, refused.reason) == (429, "egress.budget_spent")
            other = basic(OTHER_LEASE, OTHER_SECRET)
            for host, who in (("counted.example", other), ("free.example", basic())):
                reply = await ask(harness, upstream, host, who)
                assert reply is not None and reply.status == 200
            assert upstream.connections == 5


async def test_a_rules_own_request_rate_refuses_before_the_upstream_is_asked(tmp_path: Path):
    policy = POLICY.replace("bytes_per_hour: 12, ", "")
    async with recording_upstream() as upstream:
        hosts = "127.0.0.1 counted.example free.example\n"
        async with proxy_harness(tmp_path, policy.format(port=upstream.port), hosts) as harness:
            for _ in range(4):
                reply = await ask(harness, upstream, "counted.example", basic())
                assert reply is not None and reply.status == 200
            refused = await ask(harness, upstream, "counted.example", basic())
            assert refused is not None
            assert (refused.status, refused.reason) == (429, "egress.rate_limited")
            assert refused.headers["retry-after"] == "1"
            free = await ask(harness, upstream, "free.example", basic())
            assert free is not None and free.status == 200
            assert len(upstream.heads) == 5
