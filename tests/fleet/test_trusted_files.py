"""Files that we go by: read only where nobody but us and root can change what they say."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_fleet.trusted_files import (
    UntrustedFile,
    check_edited,
    look_at,
    read_edited,
    read_trusted,
)

SOMEBODY = 61234
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another account")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    made = folder / "roots.pem"
    made.write_bytes(b"said")
    made.chmod(0o644)
    return made


def _by_a_link(file: Path) -> Path:
    """The same file, by the way that a mounted secret has: a link to a link's folder."""
    mount = file.parent.parent / "mount"
    mount.mkdir()
    (mount / "..data").symlink_to(file.parent)
    (mount / file.name).symlink_to(f"..data/{file.name}")
    return mount / file.name


@pytest.mark.parametrize("way", [lambda file: file, _by_a_link], ids=["named", "linked"])
def test_what_only_we_can_change_is_read(file: Path, way: Callable[[Path], Path]) -> None:
    assert read_trusted(way(file), 4)[0] == b"said"
    file.chmod(0o400)
    file.parent.chmod(0o1777)  # what others put there is not ours, and ours is not theirs to move
    assert read_trusted(file, 4)[0] == b"said"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622])
def test_a_file_that_others_write_to_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UntrustedFile) as refused:
        read_trusted(file, 4)
    assert str(refused.value) == (
        f"{file}: mode {mode:o} lets others write to it; expected a file that only its owner can"
        f" change; run: chmod go-w {file}"
    )


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
@pytest.mark.parametrize("way", [lambda file: file, _by_a_link], ids=["named", "linked"])
def test_a_folder_that_others_write_to_is_refused(
    file: Path, mode: int, way: Callable[[Path], Path]
) -> None:
    named = way(file)
    file.parent.chmod(mode)
    with pytest.raises(UntrustedFile) as refused:
        read_trusted(named, 4)
    assert str(refused.value).startswith(f"{named}: the folder {file.parent} has mode {mode:o}, so")


def test_the_folder_of_a_link_is_looked_at_like_the_files(file: Path) -> None:
    named = _by_a_link(file)
    named.parent.chmod(0o777)
    with pytest.raises(UntrustedFile, match=f"the folder {named.parent} has mode 777"):
        read_trusted(named, 4)


def _by_three_links(file: Path) -> tuple[Path, Path]:
    """The same file by links in folders that neither have its name nor hold it: of a folder on the
    way, and from link to link. With the folder in the middle."""
    middle, named = file.parent.parent / "middle", file.parent.parent / "named"
    middle.mkdir()
    named.mkdir()
    (middle / "current").symlink_to(file.parent)
    (middle / "hop").symlink_to(f"../middle/current/{file.name}")
    (named / file.name).symlink_to(middle / "hop")
    return named / file.name, middle


def test_who_may_lead_a_link_on_the_way_elsewhere_says_what_is_read(file: Path) -> None:
    named, middle = _by_three_links(file)
    assert read_trusted(named, 4)[0] == b"said"
    assert read_trusted(middle / "current" / ".." / "folder" / file.name, 4)[0] == b"said"
    before = look_at(named)
    middle.chmod(0o777)
    assert look_at(named) != before
    for way in (named, middle / "hop", middle / "current" / file.name):
        with pytest.raises(UntrustedFile, match=f"the folder {middle} has mode 777"):
            read_trusted(way, 4)


@needs_root
@pytest.mark.parametrize("link", ["hop", "current"])
def test_a_link_of_another_account_is_not_followed(file: Path, link: str) -> None:
    named, middle = _by_three_links(file)
    middle.chmod(0o1777)
    assert read_trusted(named, 4)[0] == b"said"
    os.lchown(middle / link, SOMEBODY, 0)
    with pytest.raises(UntrustedFile, match=f"{middle / link}: belongs to another user"):
        read_trusted(named, 4)


@needs_root
def test_what_belongs_to_another_account_is_refused(file: Path) -> None:
    named = _by_a_link(file)
    os.chown(file, SOMEBODY, 0)
    with pytest.raises(UntrustedFile, match="belongs to another user; expected us or root"):
        read_trusted(file, 4)
    os.chown(file, 0, 0)
    named.parent.chmod(0o1777)
    os.lchown(named, SOMEBODY, 0)
    with pytest.raises(UntrustedFile, match=f"{named}: belongs to another user"):
        read_trusted(named, 4)
    os.chown(file.parent, SOMEBODY, 0)
    with pytest.raises(UntrustedFile, match=f"the folder {file.parent} belongs to another user"):
        read_trusted(file, 4)


def test_what_is_no_file_is_refused_and_nobody_waits_for_it(file: Path) -> None:
    os.mkfifo(file.parent / "pipe")
    with pytest.raises(UntrustedFile, match="is not a regular file"):
        read_trusted(file.parent / "pipe", 4)
    with pytest.raises(UntrustedFile, match="is not a regular file"):
        read_trusted(file.parent, 4)
    with pytest.raises(UntrustedFile, match="is larger than 3 bytes"):
        read_trusted(file, 3)
    (file.parent / "round").symlink_to("round")
    with pytest.raises(UntrustedFile, match="its links go round"):
        read_trusted(file.parent / "round", 4)
    assert look_at(file.parent / "round").stamp is None
    with pytest.raises(FileNotFoundError) as missing:
        read_trusted(file.parent / "missing", 4)
    assert missing.value.errno == errno.ENOENT


def _write(file: Path) -> None:
    file.write_bytes(b"other words")


def _open_the_file(file: Path) -> None:
    file.chmod(0o666)


def _open_the_folder(file: Path) -> None:
    file.parent.chmod(0o777)


@pytest.mark.parametrize("change", [_write, _open_the_file, _open_the_folder, Path.unlink])
@pytest.mark.parametrize("way", [lambda file: file, _by_a_link], ids=["named", "linked"])
def test_a_look_changes_with_what_is_said_and_with_who_may_say_it(
    file: Path, change: Callable[[Path], None], way: Callable[[Path], Path]
) -> None:
    named = way(file)
    before = look_at(named)
    assert look_at(named) == before
    change(file)
    assert look_at(named) != before


def _as_edited(path: Path) -> bytes:
    check_edited(path)
    return read_edited(path, 4)[0]


def test_what_a_team_edits_may_be_its_groups_to_write(file: Path) -> None:
    named, _ = _by_three_links(file)
    file.chmod(0o664)
    file.parent.chmod(0o2775)
    assert _as_edited(file) == _as_edited(named) == b"said"
    if os.geteuid() == 0:
        os.chown(file, SOMEBODY, SOMEBODY)
        os.chown(file.parent, SOMEBODY, SOMEBODY)
        assert _as_edited(file) == b"said"


@pytest.mark.parametrize("read", [check_edited, lambda path: read_edited(path, 4)])
def test_what_everybody_may_change_is_refused_though_a_team_edits_it(
    file: Path, read: Callable[[Path], object]
) -> None:
    named, middle = _by_three_links(file)
    for entry, usual, says in (
        (file, 0o664, "only its owner and group can change; run: chmod o-w"),
        (file.parent, 0o775, f"the folder {file.parent} has mode 777, so that everybody can put"),
        (middle, 0o775, f"the folder {middle} has mode 777"),
    ):
        entry.chmod(0o777)
        with pytest.raises(UntrustedFile, match=says):
            read(named)
        entry.chmod(usual)
        read(named)
