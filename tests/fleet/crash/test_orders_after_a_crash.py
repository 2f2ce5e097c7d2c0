"""What proxies and workers must be told survives a crash before anybody was told it.

There is no outbox: an order says what durable state says, and whoever connects again is told the
state (decision 0047). A fleet is killed at each point of a quarantine; the next one must tell its
proxy, which heard the view of before, and its worker all of what became durable, or nothing of it.
"""

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from palyra_egress.proxy.bindings import BindingView
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.view_models import Binding, ViewMessage
from tests.fakes.fleet_world import Clock, settings
from tests.fleet.crash.test_kill_nine import ROOT


@dataclass(frozen=True, slots=True)
class Before:
    """What the child said before it died."""

    heard: tuple[int, int]
    worker_id: str
    lease_id: str
    fence: int
    session_epoch: int


def killed_at(state_dir: Path, point: str) -> Before:
    child = subprocess.run(
        [sys.executable, "-m", "tests.fleet.crash.order_child", str(state_dir), point],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == -9, child.stdout
    said = {line.split()[0]: line.split()[1:] for line in child.stdout.splitlines()}
    epoch, seq = said["heard"]
    worker_id, lease_id, fence, session = said["lease"]
    return Before((int(epoch), int(seq)), worker_id, lease_id, int(fence), int(session))


async def first_message(service: FleetService, heard: tuple[int, int] | None) -> ViewMessage:
    async with aclosing(
        cast(AsyncGenerator[ViewMessage], service.view("proxy-1", heard))
    ) as stream:
        return await anext(stream)


@pytest.mark.crash
@pytest.mark.parametrize(
    ("point", "quarantined"),
    [
        ("core.decided", False),
        ("store.before_commit", False),
        ("store.after_commit", True),
        ("core.durable", True),
    ],
)
async def test_after_a_crash_proxy_and_worker_are_told_what_became_durable(
    tmp_path: Path, point: str, quarantined: bool
) -> None:
    before = killed_at(tmp_path / "state", point)
    service = await FleetService.start(settings(tmp_path / "state"), Clock())
    try:
        told = await first_message(service, before.heard)
        assert told.kind == "snapshot"  # whatever the proxy heard last is of another start
        assert told.epoch > before.heard[0]
        bound = {binding.lease_id for binding in told.bindings}
        assert bound == (set() if quarantined else {before.lease_id})
        assert told.blocked_workers == ((before.worker_id,) if quarantined else ())
        held = (wire.HeldLease(lease_id=before.lease_id, fence=before.fence),)
        beat = wire.HeartbeatRequest(session_epoch=before.session_epoch, seq=1, held_leases=held)
        answer = await service.heartbeat(before.worker_id, beat)
        assert (answer.state == "quarantined") is quarantined
        assert answer.stop_leases == ((before.lease_id,) if quarantined else ())
    finally:
        await service.close()


@pytest.mark.crash
async def test_a_proxy_that_believed_the_view_of_before_ends_the_lease(tmp_path: Path) -> None:
    """With the proxy's own view: connections of the lease are cut, and its worker is blocked."""
    before = killed_at(tmp_path / "state", "store.after_commit")
    view = BindingView()
    binding = Binding(
        worker_id=before.worker_id,
        lease_id=before.lease_id,
        run_id="run-1",
        fence=before.fence,
        egress_profile="profile",
        egress_secret_sha256="5" * 64,
        expires_at_unix_ms=2**52,
    )
    epoch, seq = before.heard
    view.apply(
        ViewMessage(
            kind="snapshot", epoch=epoch, seq=seq, bindings=(binding,), highest_fence=before.fence
        ),
        0,
    )
    service = await FleetService.start(settings(tmp_path / "state"), Clock())
    try:
        ended = view.apply(await first_message(service, before.heard), 1)
    finally:
        await service.close()
    assert before.lease_id in ended.lease_ids or before.worker_id in ended.worker_ids
