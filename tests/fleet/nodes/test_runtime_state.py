"""NodeRuntimeState on a real disk: what was told is there, what is damaged is refused."""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from palyra_fleet.identity.records import (
    CodeMethod,
    DevicePairingCodeRecord,
    PairingChange,
    PairingStore,
)
from palyra_fleet.nodes.generations import GenerationFile, WriteFailed
from palyra_fleet.nodes.pruning import RESTARTED, KeepRequests
from palyra_fleet.nodes.records import (
    CapabilityRequestRecord,
    CapabilityState,
    DeviceCapabilityRecord,
)
from palyra_fleet.nodes.runtime_file import FILE_NAME, parse
from palyra_fleet.nodes.runtime_state import NodeRuntimeState
from palyra_fleet.store.protocol import StateUnusable, StoreFailed


class LostAnswer(GenerationFile):
    """The real file, whose disk does not say whether it wrote."""

    def write(self, content: bytes) -> None:
        super().write(content)
        raise WriteFailed("the disk did not answer", ambiguous=True)


NOW = 1_800_000_000_000
DEVICE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ECHO = (DeviceCapabilityRecord("echo", True),)


def code(number: int) -> DevicePairingCodeRecord:
    return DevicePairingCodeRecord(f"{number:064x}", CodeMethod.PIN, "anna", NOW, NOW + 1000)


def request(number: int, state: CapabilityState, at: int = NOW) -> CapabilityRequestRecord:
    return CapabilityRequestRecord(
        f"01ARZ3NDEKTSV4RRFFQ69G{number:04d}", DEVICE, "echo", state, at, at, 1
    )


@asynccontextmanager
async def opened(state_dir: Path, **settings: int) -> AsyncIterator[NodeRuntimeState]:
    state = await NodeRuntimeState.open(state_dir, NOW, **settings)
    try:
        yield state
    finally:
        await state.close()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_what_was_committed_is_in_the_file_when_the_call_returns(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        store: PairingStore = state
        await store.commit_pairing(PairingChange(put_codes=(code(1), code(2))))
        await state.register_node(DEVICE, "linux", ECHO, NOW)
        on_disk = parse((state_dir / FILE_NAME).read_bytes())
        assert set(on_disk.active_pairing_codes) == {code(1).code_hash, code(2).code_hash}
        assert on_disk.nodes == dict(state.nodes)
        await store.commit_pairing(PairingChange(remove_codes=(code(1).code_hash,)))
        on_disk = parse((state_dir / FILE_NAME).read_bytes())
        assert set(on_disk.active_pairing_codes) == {code(2).code_hash}


async def test_a_restart_finds_everything(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        await state.commit_pairing(PairingChange(put_codes=(code(1),)))
        await state.register_node(DEVICE, "linux", ECHO, NOW)
        state.touch_node(DEVICE, "node.heartbeat", NOW + 5)
        state.note_request(request(1, CapabilityState.SUCCEEDED))
        before = state.nodes[DEVICE]
    async with opened(state_dir) as state:
        assert state.pairing_snapshot().codes == (code(1),)
        assert state.nodes[DEVICE] == before
        assert list(state.capability_requests.values()) == [request(1, CapabilityState.SUCCEEDED)]


async def test_registering_again_keeps_when_it_first_did(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        await state.register_node(DEVICE, "linux", ECHO, NOW)
        again = await state.register_node(DEVICE, "macos", (), NOW + 9)
        assert (again.registered_at_unix_ms, again.last_seen_at_unix_ms) == (NOW, NOW + 9)
        assert (again.platform, again.capabilities) == ("macos", ())


async def test_a_node_that_comes_back_unchanged_costs_no_write_of_its_own(state_dir: Path) -> None:
    async with opened(state_dir, coalesce_ms=60_000) as state:
        await state.register_node(DEVICE, "linux", ECHO, NOW)
        before = (state_dir / FILE_NAME).read_bytes()
        again = await state.register_node(DEVICE, "linux", ECHO, NOW + 9)
        assert (again.registered_at_unix_ms, again.last_seen_at_unix_ms) == (NOW, NOW + 9)
        assert state.nodes[DEVICE] == again
        assert (state_dir / FILE_NAME).read_bytes() == before
        await state.register_node(DEVICE, "linux", (), NOW + 10)
        on_disk = parse((state_dir / FILE_NAME).read_bytes())
        assert on_disk.nodes[DEVICE].capabilities == ()
    with pytest.raises(StoreFailed):
        await state.register_node(DEVICE, "linux", (), NOW + 11)


async def test_a_thousand_heartbeats_are_one_write(state_dir: Path) -> None:
    async with opened(state_dir, coalesce_ms=3_600_000) as state:
        await state.register_node(DEVICE, "linux", ECHO, NOW)
        before = parse((state_dir / FILE_NAME).read_bytes())
        for beat in range(1000):
            state.touch_node(DEVICE, "node.heartbeat", NOW + beat)
            await asyncio.sleep(0)
        assert state.nodes[DEVICE].last_seen_at_unix_ms == NOW + 999
        assert parse((state_dir / FILE_NAME).read_bytes()).generation == before.generation
    after = parse((state_dir / FILE_NAME).read_bytes())
    assert after.generation == before.generation + 1
    assert after.nodes[DEVICE].last_seen_at_unix_ms == NOW + 999


async def test_a_heartbeat_reaches_the_disk_by_itself(state_dir: Path) -> None:
    async with opened(state_dir, coalesce_ms=1) as state:
        await state.register_node(DEVICE, "linux", ECHO, NOW)
        state.touch_node(DEVICE, "node.heartbeat", NOW + 7)
        async with asyncio.timeout(60):
            while b"node.heartbeat" not in (state_dir / FILE_NAME).read_bytes():  # noqa: ASYNC110 a file changes
                await asyncio.sleep(0)


async def test_many_commits_at_once_share_writes(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        first = parse((state_dir / FILE_NAME).read_bytes()).generation
        await asyncio.gather(
            *(state.commit_pairing(PairingChange(put_codes=(code(n),))) for n in range(200))
        )
        on_disk = parse((state_dir / FILE_NAME).read_bytes())
        assert len(on_disk.active_pairing_codes) == 200
        assert on_disk.generation - first <= 3


async def test_a_heartbeat_of_a_node_that_never_registered_is_not_remembered(
    state_dir: Path,
) -> None:
    async with opened(state_dir) as state:
        state.touch_node(DEVICE, "node.heartbeat", NOW)
        assert dict(state.nodes) == {}


async def test_what_was_open_at_a_crash_is_failed_at_the_start(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        state.note_request(request(1, CapabilityState.DISPATCHED))
    async with opened(state_dir) as state:
        (found,) = state.capability_requests.values()
        assert (found.state, found.error) == (CapabilityState.FAILED, RESTARTED)


async def test_a_second_process_is_refused(state_dir: Path) -> None:
    async with opened(state_dir):
        with pytest.raises(StateUnusable, match="another process uses this state"):
            await NodeRuntimeState.open(state_dir, NOW)


async def test_files_are_for_their_owner_only_and_two_generations_are_kept(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        for number in range(5):
            await state.commit_pairing(PairingChange(put_codes=(code(number),)))
    present = parse((state_dir / FILE_NAME).read_bytes()).generation
    for number, path in enumerate((FILE_NAME, FILE_NAME + ".1", FILE_NAME + ".2")):
        assert (state_dir / path).stat().st_mode & 0o777 == 0o600
        assert parse((state_dir / path).read_bytes()).generation == present - number


async def damaged(state_dir: Path) -> Path:
    """A state directory with three generations; answers the file to damage."""
    async with opened(state_dir) as state:
        await state.commit_pairing(PairingChange(put_codes=(code(1),)))
        await state.register_node(DEVICE, "linux", ECHO, NOW)
    return state_dir / FILE_NAME


DAMAGE = {
    "torn": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "one letter changed": lambda content: content.replace(b"linux", b"minux"),
    "another version": lambda content: content.replace(b'version":1', b'version":2'),
    "rewritten by a tool": lambda content: json.dumps(json.loads(content)).encode(),
    "of another system": lambda _: b'{"nodes":{}}',
    "binary": lambda _: bytes(range(256)),
    "a list": lambda _: b"[]",
}


@pytest.mark.parametrize("how", DAMAGE)
async def test_a_damaged_file_stops_the_start_and_names_the_way_back(
    state_dir: Path, how: str
) -> None:
    path = await damaged(state_dir)
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    with pytest.raises(StateUnusable) as refused:
        await NodeRuntimeState.open(state_dir, NOW)
    assert str(path) in str(refused.value)
    assert f"node-state restore --from {path}.1" in str(refused.value)


async def test_the_way_back_skips_a_generation_that_is_damaged_too(state_dir: Path) -> None:
    path = await damaged(state_dir)
    path.write_bytes(b"")
    path.with_name(FILE_NAME + ".1").write_bytes(b"{")
    with pytest.raises(StateUnusable, match=r"--from .*\.2`"):
        await NodeRuntimeState.open(state_dir, NOW)


async def test_a_missing_file_is_a_loss_where_there_was_state(state_dir: Path) -> None:
    path = await damaged(state_dir)
    path.unlink()
    with pytest.raises(StateUnusable, match="is missing"):
        await NodeRuntimeState.open(state_dir, NOW)


async def test_a_missing_file_is_a_loss_where_the_fleet_had_nodes(state_dir: Path) -> None:
    with pytest.raises(StateUnusable, match="is missing"):
        await NodeRuntimeState.open(state_dir, NOW, must_exist=True)


async def test_a_file_that_others_may_read_is_refused(state_dir: Path) -> None:
    path = await damaged(state_dir)
    path.chmod(0o644)
    with pytest.raises(StateUnusable, match="too open"):
        await NodeRuntimeState.open(state_dir, NOW)


async def test_what_could_not_be_written_did_not_happen(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        await state.commit_pairing(PairingChange(put_codes=(code(1),)))
        (state_dir / (FILE_NAME + ".new")).mkdir()  # the draft cannot be made
        with pytest.raises(StoreFailed):
            await state.commit_pairing(
                PairingChange(put_codes=(code(2),), remove_codes=(code(1).code_hash,))
            )
        assert state.pairing_snapshot().codes == (code(1),)
        (state_dir / (FILE_NAME + ".new")).rmdir()
        assert state.trouble is None
        await state.commit_pairing(PairingChange(put_codes=(code(3),)))
        assert state.pairing_snapshot().codes == (code(1), code(3))
        on_disk = parse((state_dir / FILE_NAME).read_bytes())
        assert set(on_disk.active_pairing_codes) == {code(1).code_hash, code(3).code_hash}


def test_writes_that_fail_again_and_again_cost_no_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is tried every second; the generations are what there is to go back to."""
    file = GenerationFile(tmp_path / FILE_NAME)
    for content in (b"one", b"two", b"three"):
        file.write(content)

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr("palyra_fleet.nodes.generations.replace", full)
        for _ in range(5):
            with pytest.raises(WriteFailed) as failed:
                file.write(b"four")
            assert not failed.value.ambiguous
    file.write(b"five")
    assert [path.read_bytes() for path in (file.path, *file.kept())] == [b"five", b"three", b"two"]


async def test_a_write_whose_outcome_is_unknown_closes_the_state(state_dir: Path) -> None:
    state = await NodeRuntimeState.open(state_dir, NOW)
    state._file = LostAnswer(state_dir / FILE_NAME)
    with pytest.raises(StoreFailed) as first:
        await state.commit_pairing(PairingChange(put_codes=(code(1),)))
    assert first.value.ambiguous
    assert state.pairing_snapshot().codes == ()
    with pytest.raises(StoreFailed, match="restart the fleet"):
        await state.commit_pairing(PairingChange(put_codes=(code(2),)))
    await state.close()
    async with opened(state_dir) as state:
        assert state.pairing_snapshot().codes == (code(1),)  # it had been written


async def test_nothing_is_accepted_after_the_end(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        pass
    with pytest.raises(StoreFailed):
        await state.commit_pairing(PairingChange(put_codes=(code(1),)))


async def test_finished_requests_are_forgotten_by_age_and_number(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        for number in range(10):
            state.note_request(request(number, CapabilityState.SUCCEEDED, NOW + number))
        state.note_request(request(10, CapabilityState.QUEUED, NOW - 10_000))
        assert state.prune(NOW + 10, KeepRequests(age_ms=8, number=100)) == 3
        assert state.prune(NOW + 10, KeepRequests(age_ms=1000, number=5)) == 2
        kept = {int(request_id[-4:]) for request_id in state.capability_requests}
        assert kept == {5, 6, 7, 8, 9, 10}


async def test_a_cancelled_caller_does_not_undo_its_change(state_dir: Path) -> None:
    async with opened(state_dir) as state:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await state.commit_pairing(PairingChange(put_codes=(code(1),)))
        await state.commit_pairing(PairingChange(put_codes=(code(2),)))
        assert {found.code_hash for found in state.pairing_snapshot().codes} >= {code(2).code_hash}
        on_disk = parse((state_dir / FILE_NAME).read_bytes())
        assert set(on_disk.active_pairing_codes) == {
            found.code_hash for found in state.pairing_snapshot().codes
        }
