"""A run's own directory: private when made, gone when removed, and only it, whoever races."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from palyra_fleet.worker.workspace import REMOVE_WITHIN_S, Workspace, WorkspaceRefused
from palyra_fleet.worker.workspace_removal import mount_of, opened_beneath


def removed(workspace: Workspace, within_s: float = REMOVE_WITHIN_S) -> bool:
    return asyncio.run(workspace.remove(within_s))


def test_a_workspace_is_absolute_private_and_new_each_time(tmp_path: Path) -> None:
    one, two = Workspace.create(tmp_path), Workspace.create(tmp_path)
    assert one.root != two.root
    assert one.root.is_absolute()
    assert one.root.stat().st_mode & 0o777 == 0o700
    assert one.scope().allowed_paths == (str(one.root),)
    for workspace in (one, two):
        workspace.close()


def test_removing_takes_everything_inside_and_nothing_behind_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    workspace = Workspace.create(tmp_path)
    (workspace.root / "out").symlink_to(outside)
    closed = workspace.root / "closed"
    (closed / "deep").mkdir(parents=True)
    closed.chmod(0)
    assert removed(workspace)
    assert not workspace.root.exists()
    assert (outside / "kept").exists()


def test_a_workspace_that_the_program_removed_itself_counts_as_gone(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    workspace.temporary.rmdir()
    workspace.root.rmdir()
    assert removed(workspace)


def test_a_workspace_replaced_by_a_link_is_not_believed_to_be_gone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    workspace = Workspace.create(tmp_path)
    workspace.temporary.rmdir()
    workspace.root.rmdir()
    workspace.root.symlink_to(outside)
    before = tmp_path.stat().st_mode, outside.stat().st_mode
    assert not removed(workspace)
    assert outside.exists()
    assert not workspace.root.is_symlink()
    workspace.close()
    assert (tmp_path.stat().st_mode, outside.stat().st_mode) == before


@pytest.mark.parametrize("mode", [0, 0o555])
def test_rights_that_the_program_took_away_at_every_level_keep_nothing(
    tmp_path: Path, mode: int
) -> None:
    tmp_path.chmod(0o755)
    workspace = Workspace.create(tmp_path)
    deepest = workspace.root / "a" / "b" / "c"
    deepest.mkdir(parents=True)
    (deepest / "file").write_text("")
    for directory in (deepest, deepest.parent, deepest.parent.parent, workspace.root):
        directory.chmod(mode)
    assert removed(workspace)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_removal_that_takes_too_long_is_ended_and_not_believed(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    assert not removed(workspace, within_s=0)
    assert workspace.root.exists()
    assert removed(workspace)
    assert removed(workspace), "and gone it stays"


def test_nothing_that_others_could_rename_becomes_a_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(WorkspaceRefused, match="no sticky bit"):
        Workspace.create(tmp_path)
    tmp_path.chmod(0o1777)
    assert removed(Workspace.create(tmp_path))
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceRefused, match="no workspace: No such file"):
        Workspace.create(tmp_path / "none")


def test_a_directory_under_the_workspaces_name_that_is_not_the_workspace_is_left_alone(
    tmp_path: Path,
) -> None:
    """The program moved its workspace away and put somebody's directory there."""
    workspace = Workspace.create(tmp_path)
    (workspace.root / "secret").write_text("")
    workspace.root.rename(tmp_path / "elsewhere")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "kept").write_text("")
    (tmp_path / "precious").rename(workspace.root)
    assert not removed(workspace)
    assert (workspace.root / "kept").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == [], "what was ours is emptied all the same"
    workspace.close()


def test_an_empty_directory_that_took_its_name_is_no_proof(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    workspace.root.rename(tmp_path / "elsewhere")
    workspace.root.mkdir()
    assert not removed(workspace)
    assert workspace.root.is_dir()
    workspace.close()


def test_what_became_a_link_after_it_was_looked_at_is_not_opened(tmp_path: Path) -> None:
    """The moment between a look and an opening, which a racing program has to hit."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    (tmp_path / "link").symlink_to(outside)
    at = os.open(tmp_path, os.O_RDONLY)
    try:
        mount = mount_of(at)
        with pytest.raises(NotADirectoryError), opened_beneath("link", at, mount):
            pass
        assert outside.stat().st_mode & 0o777 == 0o750
        with opened_beneath("outside", at, mount):
            pass
    finally:
        os.close(at)
    assert outside.stat().st_mode & 0o777 == 0o700, "this one was given rights, so it was opened"


def test_a_hard_link_loses_its_name_and_the_file_elsewhere_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    outside.chmod(0o640)
    workspace = Workspace.create(tmp_path)
    os.link(outside, workspace.root / "link")
    assert removed(workspace)
    assert (outside.read_text(), outside.stat().st_nlink) == ("kept", 1)
    assert outside.stat().st_mode & 0o777 == 0o640


def test_depth_keeps_nothing(tmp_path: Path) -> None:
    """Deeper than a path may be long and than a process may hold descriptors."""
    workspace = Workspace.create(tmp_path)
    code = "import os\nfor _ in range(1200):\n os.mkdir('deeper')\n os.chdir('deeper')\n"
    code += "open('file', 'w').close()"
    subprocess.run([sys.executable, "-c", code], cwd=workspace.root, check=True)
    assert removed(workspace)


MOUNTS = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from palyra_fleet.worker.workspace_removal import remove_tree
root, outside = sys.argv[2:]
for at in ("a/mounted", "mounted"):
    subprocess.run(["mount", "--bind", outside, f"{root}/{at}"], check=True)
parent_fd, root_fd = (os.open(path, os.O_RDONLY) for path in (os.path.dirname(root), root))
print(remove_tree(parent_fd, root_fd, os.path.basename(root)))
"""


def test_what_is_mounted_inside_is_not_entered(tmp_path: Path) -> None:
    """Root may have mounted something there; to the kernel it is the same file system."""
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "kept").write_text("")
    outside.chmod(0o750)
    workspace = Workspace.create(tmp_path)
    (workspace.root / "a" / "mounted").mkdir(parents=True)
    (workspace.root / "mounted").mkdir()
    apart = ("unshare", "--user", "--map-root-user", "--mount", "--")
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("no mount namespace can be made here, so mounts were not tried")
    here = str(Path(__file__).parents[3])
    done = subprocess.run(
        [*apart, sys.executable, "-c", MOUNTS, here, str(workspace.root), str(outside)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "False", done.stderr
    assert (outside / "deep" / "kept").exists()
    assert outside.stat().st_mode & 0o777 == 0o750
    assert removed(workspace), "without the mounts all of it goes"


SWAPS = """
import contextlib, ctypes, os, sys
root, outside = sys.argv[1:]
exchange = ctypes.CDLL(None).renameat2
RENAME_EXCHANGE = 2
top = os.open(root, os.O_RDONLY)

def refill(at):
    with contextlib.suppress(OSError):
        os.mkdir("victim", dir_fd=at)
    with contextlib.suppress(OSError):
        os.symlink(outside, "link", dir_fd=at)

print("racing", flush=True)
while True:
    refill(top)
    with contextlib.suppress(OSError):
        inner = os.open("victim", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
        refill(inner)
        for _ in range(50):
            exchange(top, b"victim", top, b"link", RENAME_EXCHANGE)
            exchange(inner, b"victim", inner, b"link", RENAME_EXCHANGE)
        os.close(inner)
"""


@contextlib.contextmanager
def racing(program: str, *arguments: str) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    ) as racer:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "racing\n"
        try:
            yield
        finally:
            racer.kill()


@pytest.mark.parametrize("round_", range(3))
def test_a_program_that_swaps_directories_for_links_has_nothing_deleted_outside(
    tmp_path: Path, round_: int
) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    for name in ("kept", "inner/file", "inner/kept"):
        (outside / name).write_text(str(round_))
    before = sorted(str(path) for path in outside.rglob("*"))
    outside.chmod(0o750)
    workspace = Workspace.create(tmp_path)
    with racing(SWAPS, str(workspace.root), str(outside)):
        removed(workspace, within_s=1)
    assert sorted(str(path) for path in outside.rglob("*")) == before
    assert outside.stat().st_mode & 0o777 == 0o750
    assert removed(workspace)
    assert not workspace.root.exists()


SWAPS_THE_ROOT = """
import os, sys
root, outside = sys.argv[1:]
print("racing", flush=True)
while True:
    try:
        os.rename(root, root + "-away")
        os.symlink(outside, root)
        os.unlink(root)
        os.rename(root + "-away", root)
    except OSError:
        pass
"""


def test_a_program_that_swaps_the_workspace_itself_has_nothing_deleted_outside(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    workspace = Workspace.create(tmp_path)
    with racing(SWAPS_THE_ROOT, str(workspace.root), str(outside)):
        gone = removed(workspace)
    assert (outside / "kept").exists()
    if gone:
        assert not list(tmp_path.glob("palyra-run-*-away"))
    workspace.close()
