"""A run's own directory: private when made, gone when removed, and only it."""

import asyncio
from pathlib import Path

import pytest

from palyra_fleet.worker.workspace import REMOVE_WITHIN_S, Workspace


def removed(workspace: Workspace, within_s: float = REMOVE_WITHIN_S) -> bool:
    return asyncio.run(workspace.remove(within_s))


def test_a_workspace_is_absolute_private_and_new_each_time(tmp_path: Path) -> None:
    one, two = Workspace.create(tmp_path), Workspace.create(tmp_path)
    assert one.root != two.root
    assert one.root.is_absolute()
    assert one.root.stat().st_mode & 0o777 == 0o700
    assert one.scope().allowed_paths == (str(one.root),)


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
