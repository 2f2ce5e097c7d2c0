"""A proxy that is silent or keeps evidence back costs its workers their egress meanwhile."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from palyra_fleet.ledger.decision import Decision, EnrolledKey
from palyra_fleet.violations.silence import ProxyTrouble, ProxyWatch
from palyra_fleet.wire.models import ProxyBeat
from palyra_fleet.wire.placement_models import OrderKind
from palyra_fleet.wire.view_models import ViewMessage
from tests.fakes.fleet_world import WorkerPen, fleet_world
from tests.fakes.ledger_world import LedgerWorld, attested, key_of, ulid

SILENCE = 15_000
PROXY = EnrolledKey("proxy", "proxy-1", key_of("proxy"))
OTHER = EnrolledKey("proxy", "proxy-2", key_of("other"))


def test_a_proxy_is_silent_from_when_it_was_last_heard_or_could_first_have_been() -> None:
    watch = ProxyWatch(SILENCE, 1_000)
    assert watch.trouble(PROXY, 1_000 + SILENCE - 1) is None
    # enrolled later: it counts from when it was first looked for
    assert watch.trouble(OTHER, 20_000) is None
    assert watch.trouble(PROXY, 1_000 + 2 * SILENCE) is ProxyTrouble.SILENT
    watch.beat(PROXY, 0, 40_000)
    assert watch.trouble(PROXY, 40_000 + SILENCE - 1) is None
    assert watch.trouble(PROXY, 40_000 + SILENCE) is ProxyTrouble.SILENT


def test_a_spool_that_is_ahead_is_a_gap_only_while_the_fleet_gets_no_further() -> None:
    watch, held = ProxyWatch(SILENCE, 0), PROXY
    for second in range(30):  # always one behind, and always getting on
        held = replace(PROXY, seq=second)
        watch.beat(held, second + 1, second * 1_000)
        assert watch.trouble(held, second * 1_000) is None
    for second in range(30, 44):  # from the 29th second on it gets no further
        watch.beat(held, 40, second * 1_000)
        assert watch.trouble(held, second * 1_000) is None
    watch.beat(held, 40, 44_000)
    assert watch.trouble(held, 44_000) is ProxyTrouble.GAPPED
    caught_up = replace(held, seq=40)
    assert watch.trouble(caught_up, 44_000) is None


def test_a_spool_that_lost_what_the_fleet_holds_is_a_gap_too() -> None:
    watch, held = ProxyWatch(SILENCE, 0), replace(PROXY, seq=7)
    for second in range(17):
        watch.beat(held, 3, second * 1_000)
    assert watch.trouble(held, 16_000) is ProxyTrouble.GAPPED


def test_only_workers_with_a_lease_that_are_bound_to_it_are_suspended_and_told_once() -> None:
    world, watch = LedgerWorld(), ProxyWatch(SILENCE, 0)
    world.do(Decision(1, records=(PROXY, OTHER)))
    for number, proxy in ((101, "proxy-1"), (102, "proxy-2"), (103, "proxy-1")):
        result = replace(attested(ulid(number)), binding_proxy_id=proxy)
        world.do(world.manager.register(result, 2_000))
        if number != 103:
            world.lease(ulid(number), f"run-{number}", 3_000)
    watch.trouble(PROXY, 3_000)
    watch.beat(OTHER, 0, 20_000)
    wanted = watch.wanted(world.manager.state, 20_000)
    assert set(wanted) == {ulid(101)}
    decision = watch.change(wanted, 20_000)
    assert decision is not None
    assert [event.reason.value for event in decision.events] == ["worker.egress_suspended"]
    assert [(one.worker_id, one.kind) for one in decision.notices] == [
        (ulid(101), OrderKind.EGRESS_SUSPENDED)
    ]
    assert watch.change(watch.wanted(world.manager.state, 20_100), 20_100) is None
    assert watch.alarm() is not None and ulid(101) not in (watch.alarm() or "")
    watch.beat(PROXY, 0, 21_000)
    over = watch.change(watch.wanted(world.manager.state, 21_000), 21_000)
    assert over is not None
    assert [event.reason.value for event in over.events] == ["worker.egress_resumed"]
    assert watch.alarm() is None


async def test_every_proxy_hears_of_a_suspension_and_of_its_end() -> None:
    async with fleet_world() as world:
        worker, service = WorkerPen(ulid(201)), world.service
        await world.register(worker)
        await world.lease(worker, "run-1", 600_000)
        stream = cast(AsyncGenerator[ViewMessage], service.view("proxy-1"))
        async with aclosing(stream):
            assert (await anext(stream)).suspended_workers == ()
            await service._locked(service._settle_suspensions)
            world.clock.now_unix_ms += SILENCE
            await service._locked(service._settle_suspensions)
            told = await anext(stream)
            assert (told.kind, told.worker_id) == ("suspend", worker.worker_id)
            late = cast(AsyncGenerator[ViewMessage], service.view("proxy-1"))
            async with aclosing(late):
                assert (await anext(late)).suspended_workers == (worker.worker_id,)
            assert "proxies" in service.alarms()
            (shown,) = await service.enrolments("proxy")
            assert (shown.standing, shown.workers) == ("silent", 1)
            await service.proxy_beat("proxy-1", ProxyBeat(spooled_seq=0, policy_digest="policy"))
            over = await anext(stream)
            assert (over.kind, over.worker_id) == ("resume", worker.worker_id)
        orders = await service.orders(worker.worker_id, 0, 0)
        assert [order.kind.value for order in orders] == ["egress_suspended", "egress_resumed"]
