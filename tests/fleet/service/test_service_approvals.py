"""Approval rules with the whole service: asked, recorded, followed, kept over a start."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from palyra_fleet.leases.approval_file import ApprovalFileError
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.settings.approval_watch import ApprovalRuleFile
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.wire import models as wire
from tests.fakes.fleet_world import SCOPE, Clock, FleetWorld, WorkerPen
from tests.fakes.ledger_world import ulid

RULES = """\
version: 1
rules:
  - id: nightly
    owner: platform
    reason: builds
    until: 2100-01-01T00:00:00Z
    who: {launchers: [launcher-1], machines: [here]}
    tools: [sh]
    runs: ["nightly-*"]
    profiles: [ci]
    limits: {lease: 10m, uses_per_hour: 2, at_once: 2}
"""
SH_IN_CI = wire.ApprovalAsked(tool_name="sh", egress_profile="ci")


class Place:
    """A fleet on disk that follows a file of rules; it can be started again."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "rules.yaml"
        self.file.write_text(RULES)
        self.state = directory / "state"
        self.clock = Clock()
        self.world: FleetWorld | None = None

    async def start(self) -> FleetWorld:
        settings = FleetSettings(
            self.state, reap_every_ms=3_600_000, approvals=ApprovalRuleFile(self.file)
        )
        store = SqliteFleetStore(self.state)
        service = await FleetService.start_on(store, settings, self.clock)
        launcher, proxy = (
            (self.world.launcher, self.world.proxy) if self.world is not None else (None, None)
        )
        self.world = FleetWorld(service, self.clock)
        if launcher is not None and proxy is not None:
            self.world.launcher, self.world.proxy = launcher, proxy
        await self.world.enrol()
        return self.world

    async def again(self) -> FleetWorld:
        assert self.world is not None
        await self.world.service.close()
        return await self.start()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    yield made
    if made.world is not None:
        await made.world.service.close()


async def registered(world: FleetWorld, number: int) -> WorkerPen:
    worker = WorkerPen(ulid(number))
    await world.register(worker)
    return worker


async def ask(
    world: FleetWorld, worker: WorkerPen, run: str, asked: wire.ApprovalAsked | None = SH_IN_CI
) -> wire.LeaseAnswer:
    request = wire.LeaseRequest(
        session_epoch=worker.session_epoch,
        run_id=run,
        ttl_ms=3_600_000,
        workspace_scope=SCOPE,
        approval=asked,
    )
    return await world.service.request_lease(worker.worker_id, request)


async def refused(call: object) -> FleetReason:
    with pytest.raises(FleetRefusal) as caught:
        await call  # type: ignore[misc]
    return caught.value.reason


async def test_a_rule_gives_a_lease_and_the_log_says_which_rule_of_which_file(
    place: Place,
) -> None:
    world = await place.start()
    worker = await registered(world, 1)
    lease = await ask(world, worker, "nightly-1")
    assert lease.egress_profile == "ci"
    assert lease.expires_at_unix_ms == place.clock() + 600_000
    (grant,) = await world.service.grants()
    assert (grant.rule_id, grant.approved_by, grant.uses) == ("nightly", "rule:nightly", 1)
    events = await world.service.events(0, 100)
    (made,) = [one for one in events if one.reason == "grant.created"]
    (in_force,) = [one for one in events if one.reason == "fleet.approval_rules_in_force"]
    assert (made.actor, made.detail["rule"]) == ("rule:nightly", "nightly")
    assert made.detail["rules_sha256"] == in_force.detail["rules_sha256"]
    assert await world.service.verify_events() == len(events)
    (shown,) = world.service.approval_rules()
    assert (shown.rule_id, shown.at_once, shown.in_the_last_hour) == ("nightly", 1, 1)


@pytest.mark.parametrize(
    ("run", "asked"),
    [
        ("daily-1", SH_IN_CI),
        ("nightly-1", wire.ApprovalAsked(tool_name="bash", egress_profile="ci")),
        ("nightly-1", wire.ApprovalAsked(tool_name="sh", egress_profile="open")),
        ("nightly-1", None),
    ],
    ids=["another run", "another tool", "another profile", "not asked for"],
)
async def test_what_no_rule_names_takes_an_operator(
    place: Place, run: str, asked: wire.ApprovalAsked | None
) -> None:
    world = await place.start()
    worker = await registered(world, 1)
    assert await refused(ask(world, worker, run, asked)) is FleetReason.NO_GRANT
    await world.grant(run)
    assert (await ask(world, worker, run, asked)).egress_profile == "profile"


async def test_a_rule_that_lets_runs_only_read_gives_others_nothing(place: Place) -> None:
    place.file.write_text(RULES.replace("    tools:", "    read_only: true\n    tools:", 1))
    world = await place.start()
    worker = await registered(world, 1)
    assert await refused(ask(world, worker, "nightly-1")) is FleetReason.NO_GRANT
    reading = wire.LeaseRequest(
        session_epoch=worker.session_epoch,
        run_id="nightly-1",
        ttl_ms=60_000,
        workspace_scope=SCOPE.model_copy(update={"read_only": True}),
        approval=SH_IN_CI,
    )
    # approved by the rule, and not given: this worker is not isolated
    outcome = await refused(world.service.request_lease(worker.worker_id, reading))
    assert outcome is FleetReason.LEASE_INVALID
    (grant,) = await world.service.grants()
    assert (grant.read_only, grant.rule_id, grant.uses) == (True, "nightly", 0)


async def test_an_approval_to_read_only_is_shown_kept_and_told(place: Place) -> None:
    world = await place.start()
    worker = await registered(world, 1)
    request = wire.GrantRequest(
        run_id="daily-1",
        tool_name="sh",
        principal="alice",
        egress_profile="ci",
        ttl_ms=3_600_000,
        read_only=True,
    )
    assert (await world.service.create_grant("alice", request)).read_only
    (made,) = [one for one in await world.service.events(0, 100) if one.reason == "grant.created"]
    assert made.detail["read_only"] is True
    again = await place.again()
    (grant,) = await again.service.grants()
    assert grant.read_only
    await again.register(worker)
    assert await refused(ask(again, worker, "daily-1", None)) is FleetReason.LEASE_INVALID


async def follow(world: FleetWorld) -> None:
    await world.service._look_at_rules()


async def test_a_rule_that_goes_takes_back_what_nobody_used_and_a_bad_file_changes_nothing(
    place: Place,
) -> None:
    world = await place.start()
    worker = await registered(world, 1)
    await world.service.cordon("alice", worker.worker_id, "later")
    assert await refused(ask(world, worker, "nightly-1")) is FleetReason.DRAINING
    await world.service.uncordon("alice", worker.worker_id, "now")
    request = wire.LeaseRequest(
        session_epoch=worker.session_epoch,
        run_id="nightly-1",
        ttl_ms=1_000,
        required_capabilities=("net",),  # which the worker has not: approved, and not leased
        workspace_scope=SCOPE,
        approval=SH_IN_CI,
    )
    call = world.service.request_lease(worker.worker_id, request)
    assert await refused(call) is FleetReason.NO_WORKER
    place.file.write_text(RULES.replace("version: 1", "version: 7"))
    await follow(world)
    assert "approval_rules" in world.service.alarms()
    assert str(place.file) not in world.service.alarms()["approval_rules"]
    assert [one.rule_id for one in world.service.approval_rules()] == ["nightly"]
    place.file.write_text("version: 1\nrules: []\n")
    await follow(world)
    assert "approval_rules" not in world.service.alarms()
    (grant,) = await world.service.grants()
    assert (grant.withdrawn, grant.uses) == (True, 0)
    assert await refused(ask(world, worker, "nightly-1")) is FleetReason.NO_GRANT


async def test_a_file_that_vanishes_leaves_the_last_good_rules(place: Place) -> None:
    world = await place.start()
    place.file.unlink()
    await follow(world)
    assert "approval_rules" in world.service.alarms()
    assert (await ask(world, await registered(world, 1), "nightly-1")).run_id == "nightly-1"
    place.file.write_text(RULES)
    await follow(world)
    assert "approval_rules" not in world.service.alarms()


async def test_what_a_rule_gave_within_the_hour_counts_over_a_start(place: Place) -> None:
    world = await place.start()
    worker = await registered(world, 1)
    for number in (1, 2):
        lease = await ask(world, worker, f"nightly-{number}")
        await world.complete(worker, lease)
    world = await place.again()
    await world.register(worker)
    assert await refused(ask(world, worker, "nightly-3")) is FleetReason.RULE_LIMIT
    place.clock.forward(3_600_000)
    await world.register(worker)
    await ask(world, worker, "nightly-3")


async def test_a_start_without_the_rule_takes_back_what_it_gave(place: Place) -> None:
    world = await place.start()
    worker = await registered(world, 1)
    request = wire.LeaseRequest(
        session_epoch=worker.session_epoch,
        run_id="nightly-1",
        ttl_ms=1_000,
        required_capabilities=("net",),
        workspace_scope=SCOPE,
        approval=SH_IN_CI,
    )
    call = world.service.request_lease(worker.worker_id, request)
    assert await refused(call) is FleetReason.NO_WORKER
    place.file.write_text("version: 1\nrules: []\n")
    world = await place.again()
    (grant,) = await world.service.grants()
    assert grant.withdrawn


async def test_a_pipe_in_place_of_the_file_holds_nobody_up(place: Place) -> None:
    world = await place.start()
    place.file.unlink()
    os.mkfifo(place.file)
    await follow(world)
    assert "approval_rules" in world.service.alarms()
    assert [one.rule_id for one in world.service.approval_rules()] == ["nightly"]


async def test_rules_that_cannot_be_put_in_force_are_tried_again(place: Place) -> None:
    """The store fails while they change: what is in force, and what is shown, are the old ones."""
    world = await place.start()
    place.file.write_text("version: 1\nrules: []\n")
    world.service._closed = True
    assert await refused(follow(world)) is FleetReason.CLOSED
    assert [one.rule_id for one in world.service.approval_rules()] == ["nightly"]
    world.service._closed = False
    await follow(world)
    assert world.service.approval_rules() == ()


def test_a_fleet_does_not_begin_with_rules_that_are_not_good(tmp_path: Path) -> None:
    bad = tmp_path / "rules.yaml"
    with pytest.raises(ApprovalFileError, match="is not there"):
        ApprovalRuleFile(bad)
    bad.write_text("version: 1\n")
    with pytest.raises(ApprovalFileError, match="missing_key: the key 'rules' is missing"):
        ApprovalRuleFile(bad)


def test_rules_that_everybody_may_write_are_not_followed(tmp_path: Path) -> None:
    """A team may; and once it is mended, what is new comes into force."""
    file = tmp_path / "rules.yaml"
    file.write_text("version: 1\nrules: []\n")
    file.chmod(0o664)
    followed = ApprovalRuleFile(file)
    file.write_text("version: 1\nrules: []\n# newer\n")
    file.chmod(0o666)
    before = followed.rules
    followed.poll()
    assert followed.rules is before
    assert followed.problem == (
        f"{file}: mode 666 lets everybody write to it; expected a file that only its owner and"
        f" group can change; run: chmod o-w {file}"
    )
    with pytest.raises(ApprovalFileError, match="lets everybody write to it"):
        ApprovalRuleFile(file)
    file.chmod(0o664)
    followed.poll()
    assert followed.problem is None and followed.rules is not before
