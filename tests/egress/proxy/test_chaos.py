"""Whatever goes wrong at whichever moment, nothing leaves that was not granted.

Faults are put into real connections (a guard that misbehaves at one hook, a broken part of the
core), and every test asks the upstream what arrived. The hooks come from the handler's own table,
so that a new hook without a row here fails.
"""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from palyra_egress.proxy.bindings import BindingView
from palyra_egress.proxy.core import Phase
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_egress.proxy.hooks import DECIDED
from palyra_egress.service import EgressProxyPolicyService
from tests.egress.proxy.lanes import (
    BODY_END,
    CARRYING,
    FAMILIES,
    Chaos,
    Lane,
    chaos,
    http2,
    http2_streamed,
    inner_head,
    inspected,
    inspected_streamed,
    mute_upstream,
    passed_on,
    plain,
    plain_streamed,
    redirected_inspected,
    redirected_passed_on,
    redirected_plain,
    refused_connect,
    socks_inspected,
    socks_passed_on,
    socks_plain,
    untrusted_upstream,
    websocket,
)
from tests.fakes.proxy_harness import LEASE, WORKER, Injection, basic, read_to_end
from tests.fakes.waiting_resolver import WaitingResolver

HANG_DEADLINE_S: Final = 0.15

# --- the table: how each hook is reached, and what may have happened before it -----------------

NOT_DIALLED: Final = "nothing was dialled"
NOT_SENT: Final = "dialled, and no byte of a request was sent"
GRANTED: Final = "the granted request is on its way; no response byte comes back"
PASSED_ON: Final = "the granted exchange went through; both sides end"

_PLAIN: Final = (plain, plain_streamed, websocket)
_BY_CONNECT: Final = (inspected, inspected_streamed, http2, http2_streamed, passed_on)
_SOCKS: Final = (socks_plain, socks_inspected, socks_passed_on)
_DOORS: Final = (*_SOCKS, redirected_plain, redirected_inspected, redirected_passed_on)
_INSPECTED: Final = (*_BY_CONNECT[:-1], socks_inspected, redirected_inspected)
_IN_TLS: Final = (*_INSPECTED, passed_on, socks_passed_on, redirected_passed_on)
_REQUESTS: Final = (*_PLAIN, *_INSPECTED, socks_plain, redirected_plain)
_STREAMED: Final = (plain_streamed, inspected_streamed, http2_streamed)

STIMULI: Final[dict[str, tuple[tuple[tuple[Lane, ...], str], ...]]] = {
    "client_connected": ((CARRYING, NOT_DIALLED),),
    "next_layer": ((CARRYING, NOT_DIALLED),),
    "http_connect": ((_BY_CONNECT, NOT_DIALLED),),
    "http_connected": ((_BY_CONNECT, NOT_DIALLED),),
    "http_connect_error": (((refused_connect,), NOT_DIALLED),),
    "tls_clienthello": ((_IN_TLS, NOT_DIALLED),),
    "socks_shown": ((_SOCKS, NOT_DIALLED),),
    "tunnel_asked": ((_DOORS, NOT_DIALLED),),
    "tls_start_client": ((_INSPECTED, NOT_DIALLED),),
    "tls_established_client": ((_INSPECTED, NOT_DIALLED),),
    "requestheaders": ((_REQUESTS, NOT_DIALLED),),
    "tls_start_server": ((_INSPECTED, NOT_SENT),),
    "tls_failed_server": (((untrusted_upstream,), NOT_SENT),),
    "request": (
        (tuple(lane for lane in _REQUESTS if lane not in _STREAMED), NOT_DIALLED),
        (_STREAMED, GRANTED),  # the body went out while it came in
    ),
    "responseheaders": ((_REQUESTS, GRANTED),),
    "error": (((mute_upstream,), GRANTED),),
    "response": ((_REQUESTS, PASSED_ON),),
    "client_disconnected": ((CARRYING, PASSED_ON),),
}


# --- the faults ---------------------------------------------------------------------------------


@dataclass
class Struck:
    """Proof that the fault really happened."""

    event: asyncio.Event = field(default_factory=asyncio.Event)


async def _raise() -> None:
    raise RuntimeError("injected")


async def _time_out() -> None:
    raise TimeoutError


async def _hang() -> None:
    await asyncio.Event().wait()


async def _cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


RAISES: Final = "raises"
HANGS: Final = "hangs"
CANCELLED: Final = "is cancelled"
FAULTS: Final = {
    RAISES: _raise,
    "raises a timeout": _time_out,
    HANGS: _hang,
    CANCELLED: _cancel,
}


def faulty_guard(hook: str, fault: str, *, late: bool, struck: Struck) -> type[ConnectionGuard]:
    """A guard whose `hook` fails, before its decision or (`late`) after it."""
    decide = getattr(ConnectionGuard, hook)

    async def fail(self: ConnectionGuard, subject: Any) -> None:
        if late:
            await decide(self, subject)
        struck.event.set()
        await FAULTS[fault]()

    return type("FaultyGuard", (ConnectionGuard,), {hook: fail})


def _faults(lane: Lane, lanes: tuple[Lane, ...]) -> Iterable[str]:
    """All on the first lane of a row; what hangs takes its time: once in each family of lanes."""
    others = (RAISES, CANCELLED, HANGS) if lane in FAMILIES else (RAISES, CANCELLED)
    return FAULTS if lane is lanes[0] else others


def _matrix() -> list[Any]:
    rows = []
    for hook in sorted(DECIDED):
        for lanes, expected in STIMULI[hook]:
            for lane in lanes:
                for fault in _faults(lane, lanes):
                    # a late fault differs from an early one by what was decided, not by its kind
                    lates = (False, True) if lane is lanes[0] or fault == RAISES else (False,)
                    for late in lates:
                        when = "late" if late else "early"
                        name = f"{hook}-{fault.replace(' ', '_')}-{when}-{lane.__name__}"
                        rows.append(pytest.param(hook, fault, late, lane, expected, id=name))
    return rows


def test_every_hook_that_is_decided_has_a_row_and_every_row_a_hook():
    assert set(STIMULI) == set(DECIDED)


@pytest.mark.parametrize("lane", CARRYING)
async def test_every_lane_carries_a_request_while_nothing_is_wrong(tmp_path, lane):
    async with chaos(tmp_path) as world:
        got = await lane(world)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert got.endswith(b"hello")
        assert world.plain.connections + world.secure.connections == 1
        await world.everything_is_closed()


@pytest.mark.parametrize(("hook", "fault", "late", "lane", "expected"), _matrix())
async def test_a_hook_that_fails_lets_nothing_through(tmp_path, hook, fault, late, lane, expected):
    struck = Struck()
    inject = Injection(
        faulty_guard(hook, fault, late=late, struck=struck),
        hook_deadline_s=HANG_DEADLINE_S if fault == HANGS else None,
    )
    async with chaos(tmp_path, inject) as world:
        got = await lane(world)
        async with asyncio.timeout(60):
            await struck.event.wait()
        await world.everything_is_closed()
        match expected:
            case "nothing was dialled":
                world.nothing_was_dialled()
            case "dialled, and no byte of a request was sent":
                world.nothing_was_received()
            case "the granted request is on its way; no response byte comes back":
                assert b"hello" not in got
                assert b" 200 " not in got
            case _:
                assert got.count(b"hello") <= 1
        if hook == "request":
            received = bytes(world.plain.received + world.secure.received)
            assert not received.endswith(BODY_END), "the request must not look complete"


# --- a broken part of the core --------------------------------------------------------------------


class RaisingService(EgressProxyPolicyService):
    """A judge whose two phases, or whose refusals, fail."""

    failing: frozenset[str] = frozenset()

    def precheck(self, request, now_unix_ms):
        self._fail("precheck")
        return super().precheck(request, now_unix_ms)

    def decide(self, request, addresses, now_unix_ms, judged=None):
        self._fail("decide")
        return super().decide(request, addresses, now_unix_ms, judged)

    def refusal(self, request, reason, canary_id=None):
        self._fail("refusal")
        return super().refusal(request, reason, canary_id)

    def _fail(self, name):
        if name in self.failing:
            raise RuntimeError("injected")


def _use_failing_service(world: Chaos, *failing: str) -> None:
    service = RaisingService(world.core.service.policy)
    service.failing = frozenset(failing)
    world.core.service = service


def _write_to(descriptor: int, device: str, flags: int) -> None:
    """From now on what is written to `descriptor` goes to `device`."""
    other = os.open(device, flags)
    os.dup2(other, descriptor)
    os.close(other)


def policy_is_gone(world: Chaos) -> None:
    world.core.service.replace_policy(None)


def precheck_raises(world: Chaos) -> None:
    _use_failing_service(world, "precheck")


def decide_raises(world: Chaos) -> None:
    _use_failing_service(world, "decide")


def whole_judge_raises(world: Chaos) -> None:
    _use_failing_service(world, "precheck", "decide", "refusal")


def view_was_never_heard(world: Chaos) -> None:
    world.core.view = BindingView()


def view_is_stale(world: Chaos) -> None:
    world.core.view._heard_at_monotonic_ms -= world.core.view.max_age_ms + 1


def disk_is_full(world: Chaos) -> None:
    _write_to(world.core.audit._descriptor, "/dev/full", os.O_WRONLY)


def audit_is_read_only(world: Chaos) -> None:
    _write_to(world.core.audit._descriptor, "/dev/null", os.O_RDONLY)


def spool_is_broken(world: Chaos) -> None:
    world.core.spool._broken = True


def proxy_is_starting(world: Chaos) -> None:
    world.core.phase = Phase.STARTING


def proxy_is_stopping(world: Chaos) -> None:
    world.core.phase = Phase.STOPPING


BREAKAGES: Final = (
    policy_is_gone,
    precheck_raises,
    decide_raises,
    whole_judge_raises,
    view_was_never_heard,
    view_is_stale,
    disk_is_full,
    audit_is_read_only,
    spool_is_broken,
    proxy_is_starting,
    proxy_is_stopping,
)


@pytest.mark.parametrize("lane", CARRYING)
@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_core_lets_nothing_through(tmp_path, breakage, lane):
    async with chaos(tmp_path) as world:
        breakage(world)
        got = await lane(world)
        assert b" 200 OK" not in got
        await world.everything_is_closed()
        world.nothing_was_dialled()


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_core_that_breaks_while_a_tunnel_is_open_lets_nothing_more_through(
    tmp_path, breakage
):
    async with chaos(tmp_path) as world:
        authority = f"api.example:{world.secure.port}"
        _, reader, writer = await world.harness.tunnel(authority)
        breakage(world)
        writer.write(inner_head(authority, "GET"))
        assert b" 200 OK" not in await read_to_end(reader)
        writer.close()
        await world.everything_is_closed()
        world.nothing_was_dialled()


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_core_that_breaks_stops_a_connection_whose_upstream_is_open(tmp_path, breakage):
    async with chaos(tmp_path) as world:
        authority = f"api.example:{world.secure.port}"
        _, reader, writer = await world.harness.tunnel(authority)
        writer.write(f"GET /first HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
        before = bytes(world.secure.received)
        breakage(world)
        writer.write(inner_head(authority, "GET", path="/second"))
        assert b" 200 OK" not in await read_to_end(reader)
        writer.close()
        await world.everything_is_closed()
        assert bytes(world.secure.received) == before


# --- windows in time ------------------------------------------------------------------------------


async def test_a_violation_whose_evidence_cannot_be_written_stops_the_proxy(tmp_path):
    async with chaos(tmp_path) as world:
        _write_to(world.core.spool._descriptor, "/dev/full", os.O_WRONLY)
        reply, _, _ = await world.harness.tunnel("169.254.169.254:80")
        assert reply is not None and reply.reason == "egress.audit_unavailable"
        assert world.core.view.is_blocked(WORKER), "the block does not wait for the disk"
        for lane in CARRYING:
            assert b" 200 OK" not in await lane(world)
        world.nothing_was_dialled()


async def _while_judged(world: Chaos, lane: Lane, happens: Any) -> bytes:
    """Run the lane, and let something happen while its first verdict waits for the resolver."""
    waiting = world.core.resolver = WaitingResolver(world.core.resolver)
    async with asyncio.TaskGroup() as group:
        request = group.create_task(lane(world))
        await waiting.asked.wait()
        await happens()
        waiting.go_on.set()
    return request.result()


@pytest.mark.parametrize("lane", CARRYING)
async def test_a_proxy_that_is_stopped_while_it_judges_lets_nothing_through(tmp_path, lane):
    async with chaos(tmp_path) as world:
        assert b" 200 OK" not in await _while_judged(world, lane, world.harness.proxy.stop)
        world.nothing_was_dialled()


CHANGES_OF_MIND: Final = {
    "the worker is blocked": ("block", {"worker_id": WORKER}),
    "the lease ends": ("unbind", {"lease_id": LEASE}),
    "everybody is gone": ("snapshot", {}),
}


@pytest.mark.parametrize("lane", CARRYING)
@pytest.mark.parametrize("change", CHANGES_OF_MIND)
async def test_a_word_of_the_fleet_while_the_proxy_judges_counts(tmp_path, change, lane):
    kind, fields = CHANGES_OF_MIND[change]
    async with chaos(tmp_path) as world:

        async def told() -> None:
            world.harness.tell(kind, **fields)

        assert b" 200 OK" not in await _while_judged(world, lane, told)
        await world.everything_is_closed()
        world.nothing_was_dialled()


async def test_a_policy_that_goes_while_the_proxy_judges_is_gone(tmp_path):
    async with chaos(tmp_path) as world:

        async def gone() -> None:
            policy_is_gone(world)

        assert b"egress.policy_not_loaded" in await _while_judged(world, plain, gone)
        world.nothing_was_dialled()


@pytest.mark.parametrize("breakage", [disk_is_full, audit_is_read_only])
async def test_an_audit_log_that_fails_while_a_response_passes_cuts_everybody(tmp_path, breakage):
    async with chaos(tmp_path) as world:
        half = asyncio.Event()

        async def in_two_halves(_head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            await half.wait()
            writer.write(b"later")

        world.plain.respond = in_two_halves
        other, _ = await world.harness.connect()
        reader, writer = await world.harness.connect()
        authority = f"plain.example:{world.plain.port}"
        writer.write(
            f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
            f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
        )
        await reader.readuntil(b"first")
        breakage(world)
        half.set()
        await read_to_end(reader)
        assert await read_to_end(other) == b""
        await world.everything_is_closed()
        assert b" 200 OK" not in await plain(world)
