"""What a launcher that was killed left is removed by the next run, and nothing else is."""

import asyncio
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from palyra_fleet.worker import left_behind
from palyra_fleet.worker.workspace import Workspace, remove_left_behind

LAUNCHER = """
import sys, time
from pathlib import Path
from palyra_fleet.worker.workspace import Workspace
workspace = Workspace.create(Path(sys.argv[1]))
(workspace.root / "secret").write_text("")
print(workspace.root, flush=True)
time.sleep(600)
"""


def killed_launcher(place: Path) -> Path:
    """Its workspace, after a launcher of its own process was killed."""
    words = [sys.executable, "-c", LAUNCHER, str(place)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        made = Path(launcher.stdout.readline().strip())
        launcher.kill()
    assert made.is_dir()
    return made


async def test_what_a_killed_launcher_left_is_gone_with_the_next_run(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    made = killed_launcher(tmp_path)
    (made / "out").symlink_to(outside)
    await remove_left_behind(tmp_path)
    assert not made.exists()
    assert (outside / "kept").exists()


def test_a_workspace_whose_launcher_lives_stays(tmp_path: Path) -> None:
    words = [sys.executable, "-c", LAUNCHER, str(tmp_path)]
    own = Workspace.create(tmp_path)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        made = Path(launcher.stdout.readline().strip())
        asyncio.run(remove_left_behind(tmp_path))
        assert (made / "secret").exists()
        assert own.temporary.is_dir()
        launcher.kill()
    assert asyncio.run(own.remove())


@pytest.mark.parametrize(
    "what",
    ["of another boot", "of another name", "open to others", "a link", "a file", "locked"],
)
async def test_nothing_else_is_taken_for_left_behind(tmp_path: Path, what: str) -> None:
    made = killed_launcher(tmp_path)
    kept = made / "secret"
    descriptor = -1
    match what:
        case "of another boot":
            moved = made.rename(tmp_path / f"{left_behind.PREFIX}x-00000000-0000")
            kept = moved / "secret"
        case "of another name":
            kept = made.rename(tmp_path / f"run{left_behind.suffix()}") / "secret"
        case "open to others":
            made.chmod(0o750)
        case "a link":
            kept = made.rename(tmp_path / "elsewhere") / "secret"
            made.symlink_to(tmp_path / "elsewhere")
        case "a file":
            kept = made.rename(tmp_path / "elsewhere") / "secret"
            made.write_text("")
        case _:
            descriptor = os.open(made, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    await remove_left_behind(tmp_path)
    assert kept.exists()
    if descriptor >= 0:
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to others")
async def test_what_belongs_to_another_account_stays(tmp_path: Path) -> None:
    made = killed_launcher(tmp_path)
    os.chown(made, 65534, 65534)
    await remove_left_behind(tmp_path)
    assert (made / "secret").exists()


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_where_others_may_rename_what_is_ours_nothing_is_removed(tmp_path: Path, mode: int) -> None:
    """They could give another directory of this account the name of a workspace."""
    made = killed_launcher(tmp_path)
    tmp_path.chmod(mode)
    asyncio.run(remove_left_behind(tmp_path))
    assert (made / "secret").exists()
    tmp_path.chmod(mode | stat.S_ISVTX)  # now only its owner may
    asyncio.run(remove_left_behind(tmp_path))
    assert not made.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to others")
def test_where_the_place_belongs_to_another_account_nothing_is_removed(
    tmp_path: Path,
) -> None:
    made = killed_launcher(tmp_path)
    tmp_path.chmod(0o1777)
    os.chown(tmp_path, 65534, 65534)
    asyncio.run(remove_left_behind(tmp_path))
    assert (made / "secret").exists()


def test_in_a_place_that_gives_its_group_what_was_left_is_removed(tmp_path: Path) -> None:
    """The kernel sets the bit (setgid) on what is made there."""
    tmp_path.chmod(0o2700)
    made = killed_launcher(tmp_path)
    assert made.stat().st_mode & stat.S_ISGID
    asyncio.run(remove_left_behind(tmp_path))
    assert not made.exists()


def test_a_program_that_shuts_itself_out_keeps_nothing_there(tmp_path: Path) -> None:
    made = killed_launcher(tmp_path)
    made.chmod(0o400)
    asyncio.run(remove_left_behind(tmp_path))
    assert not made.exists()


async def test_what_cannot_be_removed_in_time_is_left_for_the_next(tmp_path: Path) -> None:
    made = killed_launcher(tmp_path)
    await remove_left_behind(tmp_path, within_s=0)
    assert made.exists()
    await remove_left_behind(tmp_path)
    assert not made.exists()


async def test_where_the_boot_is_not_known_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = killed_launcher(tmp_path)
    monkeypatch.setattr(left_behind, "_BOOT_ID", tmp_path / "none")
    await remove_left_behind(tmp_path)
    assert made.exists()


def test_a_workspace_that_was_taken_between_making_and_locking_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another launcher sweeps just then: once it holds the lock, once it has removed it."""
    real, met = left_behind.hold, []

    def swept_first(root_fd: int, parent_fd: int, name: str) -> bool:
        met.append(name)
        if len(met) == 1:
            other = os.open(tmp_path / name, os.O_RDONLY)
            fcntl.flock(other, fcntl.LOCK_EX)
            held = real(root_fd, parent_fd, name)
            os.close(other)
            return held
        if len(met) == 2:
            (tmp_path / name).rmdir()
        return real(root_fd, parent_fd, name)

    monkeypatch.setattr("palyra_fleet.worker.workspace.hold", swept_first)
    workspace = Workspace.create(tmp_path)
    assert (len(met), workspace.root.name) == (3, met[2])
    assert workspace.temporary.is_dir()
    workspace.close()
