"""Snapshots that a fleet saves beside its store: whole, private, bounded, and kept."""

import hashlib
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from palyra_fleet.api.answers import SEQ_HEADER
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.snapshot_commands import MIN_BETWEEN_MS
from palyra_fleet.store import snapshot, snapshot_process, snapshot_shelf
from palyra_fleet.store.snapshot_shelf import FOLDER, MAX_KEPT
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import GrantRequest
from palyra_fleet.worker.timekeeper import LoopTime
from tests.fakes.raw_http import ask
from tests.fakes.real_fleet import RealFleet, real_fleet

GRANT = GrantRequest(run_id="r", tool_name="t", principal="p", egress_profile="e", ttl_ms=60_000)


class Ahead(LoopTime):
    """The real time, and as much more as a test wants."""

    ahead_ms = 0

    def wall_unix_ms(self) -> int:
        return super().wall_unix_ms() + self.ahead_ms


@pytest.fixture
async def fleet() -> AsyncIterator[RealFleet]:
    async with real_fleet(time=Ahead()) as served:
        yield served


def folder_of(fleet: RealFleet) -> Path:
    return fleet.home / "state" / FOLDER


def later(fleet: RealFleet) -> None:
    """Long enough for the next one."""
    assert isinstance(fleet.time, Ahead)
    fleet.time.ahead_ms += MIN_BETWEEN_MS


async def test_a_snapshot_is_whole_private_and_says_what_it_holds(fleet: RealFleet) -> None:
    await fleet.operator.create_grant(GRANT)
    last = fleet.service.last_event_seq
    saved = await fleet.operator.save_snapshot("before the upgrade")
    file = fleet.home / "state" / saved.file
    content = file.read_bytes()
    assert (saved.size_bytes, saved.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (saved.seq, saved.epoch) == (last, fleet.service.epoch)
    assert snapshot.inspect(file).events == last
    assert (saved.saved_by, saved.why) == ("operator", "before the upgrade")
    assert {stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    (event,) = await fleet.operator.events(last)
    assert (event.reason, event.detail["sha256"]) == ("fleet.snapshot_saved", saved.sha256)
    assert fleet.operator.last_seq == event.seq


async def test_those_there_are_stand_in_a_list_the_newest_first(fleet: RealFleet) -> None:
    assert await fleet.operator.snapshots() == ()
    saved = []
    for reason in ("one", "two"):
        saved.append(await fleet.operator.save_snapshot(reason))
        later(fleet)
    assert await fleet.operator.snapshots() == tuple(reversed(saved))
    (fleet.home / "state" / saved[0].file).unlink()  # somebody moved it away
    assert await fleet.operator.snapshots() == (saved[1],)


@pytest.mark.parametrize(("mib", "seconds"), [(0, 600), (1, 602), (1_900, 4_400)])
def test_a_larger_store_has_more_time(mib: int, seconds: int) -> None:
    """1.9 GiB, a million workers, took more than ten minutes on a busy machine."""
    assert snapshot_process.within_s(mib * 2**20) == seconds


async def test_one_at_a_time_and_not_all_the_time(fleet: RealFleet) -> None:
    first = spawn(fleet.service.save_snapshot("anna", "one"), "first")
    with pytest.raises(FleetRefusal) as meanwhile:
        while not first.done():  # the first task begins before the second asks
            await fleet.service.snapshots()
            await fleet.service.save_snapshot("anna", "two")
    assert meanwhile.value.reason is FleetReason.SNAPSHOT_BUSY
    await first
    with pytest.raises(FleetRefusal, match="less than") as soon:
        await fleet.service.save_snapshot("anna", "three")
    assert soon.value.reason is FleetReason.SNAPSHOT_BUSY
    later(fleet)
    await fleet.service.save_snapshot("anna", "four")


async def test_nothing_whole_is_removed_to_make_room(fleet: RealFleet) -> None:
    saved = await fleet.operator.save_snapshot("the first")
    folder = folder_of(fleet)
    for number in range(1, MAX_KEPT):
        name = f"{saved.snapshot_id[:-2]}{number:02}"
        for end in (".snapshot", ".json"):
            shutil.copy(folder / f"{saved.snapshot_id}{end}", folder / f"{name}{end}")
    before = sorted(folder.iterdir())
    later(fleet)
    with pytest.raises(FleetRefusal) as full:
        await fleet.service.save_snapshot("anna", "one more")
    assert full.value.reason is FleetReason.SNAPSHOTS_FULL
    assert sorted(folder.iterdir()) == before


async def test_a_disk_without_room_is_told_before_anything_is_written(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_shelf, "_SPARE_BYTES", 2**60)
    with pytest.raises(FleetRefusal, match="free") as full:
        await fleet.service.save_snapshot("anna", "no room")
    assert full.value.reason is FleetReason.SNAPSHOTS_FULL
    assert list(folder_of(fleet).iterdir()) == []


async def test_what_a_crash_left_is_swept_away_and_nothing_else(fleet: RealFleet) -> None:
    folder = folder_of(fleet)
    folder.mkdir(mode=0o700)
    half, notes = f"{'0' * 26}.snapshot", "notes of an operator.txt"
    for name in (half, f"{half}.partial", f"{'1' * 26}.json.new", notes):
        (folder / name).touch(mode=0o600)
    saved = await fleet.operator.save_snapshot("after the crash")
    assert {one.suffix for one in folder.iterdir()} == {".snapshot", ".json", ".txt"}
    assert [one.snapshot_id for one in await fleet.operator.snapshots()] == [saved.snapshot_id]


async def test_a_state_that_cannot_be_saved_is_a_refusal_and_no_event(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = fleet.service.last_event_seq
    monkeypatch.setattr(snapshot_process, "sys", SimpleNamespace(executable="false"))
    with pytest.raises(FleetRefusal) as failed:
        await fleet.service.save_snapshot("anna", "broken")
    assert failed.value.reason is FleetReason.STORE_UNAVAILABLE
    assert fleet.service.last_event_seq == last
    assert await fleet.service.snapshots() == ()


@pytest.mark.parametrize(
    "said",
    ["", "[]", "{}", "null", "not JSON", '{"sha256": 1}', '{"sha256": "' + "0" * 64 + '"'],
)
async def test_what_does_not_say_what_it_saved_is_a_refusal_and_lists_nothing(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str
) -> None:
    program = tmp_path / "says-something-else"
    program.write_text(f"#!/bin/sh\nprintf %s '{said}'\n")
    program.chmod(0o700)
    monkeypatch.setattr(snapshot_process, "sys", SimpleNamespace(executable=str(program)))
    headers = {"Authorization": f"Bearer {fleet.token}", "Content-Type": "application/json"}
    url, body = fleet.server.admin_url, b'{"reason": "look"}'
    answer = await ask(url, "POST", "/v1/snapshot", body, headers)
    assert (answer.status, answer.reason) == (503, FleetReason.STORE_UNAVAILABLE)
    assert await fleet.service.snapshots() == ()


async def test_asked_twice_with_one_key_it_is_saved_once(fleet: RealFleet) -> None:
    headers = {
        "Authorization": f"Bearer {fleet.token}",
        "Content-Type": "application/json",
        "Idempotency-Key": "k" * 20,
    }
    body = b'{"reason": "once"}'
    url = fleet.server.admin_url
    first = await ask(url, "POST", "/v1/snapshot", body, headers)
    again = await ask(url, "POST", "/v1/snapshot", body, headers)
    assert first.status == again.status == 201
    assert first.body == again.body
    assert first.headers[SEQ_HEADER.lower()] == again.headers[SEQ_HEADER.lower()]
