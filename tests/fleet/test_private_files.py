"""Private files: refused when too open, replaced whole, written by one at a time."""

import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_fleet.private_files import create, exclusive, read_private, replace, stamp
from palyra_fleet.wire.keys import KeyFileError

_SPAWN = multiprocessing.get_context("spawn")


def test_what_was_replaced_is_read_back_private_and_alone(tmp_path: Path) -> None:
    file = tmp_path / "state"
    replace(file, b"one")
    first = stamp(file)
    replace(file, b"two")
    assert read_private(file, 10) == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stamp(file) != first and stamp(tmp_path / "absent") is None
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_file_is_created_once_only(tmp_path: Path) -> None:
    create(tmp_path / "state", b"one")
    with pytest.raises(FileExistsError):
        create(tmp_path / "state", b"two")
    assert read_private(tmp_path / "state", 10) == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "state.new").symlink_to(victim)
    replace(tmp_path / "state", b"new")
    assert read_private(tmp_path / "state", 10) == b"new"
    assert victim.read_text() == "kept"


def _open_to_others(path: Path) -> None:
    path.chmod(0o604)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _large(path: Path) -> None:
    path.write_bytes(b"x" * 11)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_open_to_others, "mode 604 is too open; run: chmod 600 on it"),
        (_link, "cannot be read: Too many levels of symbolic links"),
        (_directory, "is not a regular file"),
        (_pipe, "is not a regular file"),
        (_large, "is larger than 10 bytes"),
        (Path.unlink, "does not exist"),
    ],
)
def test_an_unsuitable_file_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    file = tmp_path / "state"
    replace(file, b"x")
    spoil(file)
    with pytest.raises(KeyFileError) as caught:
        read_private(file, 10)
    assert str(caught.value) == f"{file}: {said}"


def _count_up(file: Path, times: int) -> None:
    for _ in range(times):
        with exclusive(file.with_name("lock")):
            replace(file, b"%d" % (int(read_private(file, 20)) + 1))


def test_writers_take_turns(tmp_path: Path) -> None:
    file = tmp_path / "count"
    replace(file, b"0")
    writers = [_SPAWN.Process(target=_count_up, args=(file, 25)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert read_private(file, 20) == b"75"
