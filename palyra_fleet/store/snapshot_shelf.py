"""The folder beside the store where the fleet saves snapshots that were asked for over its API.

Each is two private files: `ULID.snapshot`, and `ULID.json` with what it holds, written last.
Without the second the first is what a crash left, and is swept away by the next. Nothing whole is
ever removed: the number is bounded, and beyond it, or without room on the disk, the next is
refused. One caller at a time.
"""

import re
import shutil
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from palyra_fleet import private_files
from palyra_fleet.store.protocol import StateUnusable
from palyra_fleet.store.sqlite_connection import FLEET_DATABASE
from palyra_fleet.wire.ids import ULID_PATTERN
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.wire.snapshot_models import SnapshotView

FOLDER: Final = "snapshots"
MAX_KEPT: Final = 32
_MAX_NOTE_BYTES: Final = 16 * 1024
_SPARE_BYTES: Final = 64 * 1024 * 1024
_OURS: Final = re.compile(rf"({ULID_PATTERN})\.(?:snapshot|snapshot\.partial|json|json\.new)")


class NoRoom(Exception):
    """There are as many as may be, or the disk has no room; the text says which."""


def prepare(state_dir: Path) -> Path:
    """The folder, swept, with room for one more. Raises NoRoom or StateUnusable."""
    folder = state_dir / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _sweep(folder)
        kept = sum(one.suffix == ".snapshot" for one in folder.iterdir())
        if kept >= MAX_KEPT:
            raise NoRoom(f"{FOLDER}/ holds {kept} snapshots: move old ones elsewhere")
        needs = 2 * size_of_store(state_dir) + _SPARE_BYTES
        if (free := shutil.disk_usage(folder).free) < needs:
            raise NoRoom(f"a snapshot may need {needs} bytes, and {free} are free")
    except OSError as error:
        raise StateUnusable(f"{folder}: cannot be used ({error.strerror})") from error
    return folder


def put_note(state_dir: Path, view: SnapshotView) -> None:
    """The snapshot is whole: it is listed from now on. Raises OSError."""
    note = state_dir / FOLDER / f"{view.snapshot_id}.json"
    private_files.replace(note, view.model_dump_json().encode() + b"\n")


def listed(state_dir: Path) -> tuple[SnapshotView, ...]:
    """Those that are whole, the newest first."""
    folder = state_dir / FOLDER
    found = (_noted(note) for note in sorted(folder.glob("*.json"), reverse=True))
    return tuple(one for one in found if one is not None)


def file_of(snapshot_id: str) -> str:
    """Where it lies, below the state directory."""
    return f"{FOLDER}/{snapshot_id}.snapshot"


def _noted(note: Path) -> SnapshotView | None:
    """What a note says, if its snapshot is there."""
    if not note.with_suffix(".snapshot").is_file():
        return None
    try:
        return SnapshotView.model_validate_json(private_files.read_private(note, _MAX_NOTE_BYTES))
    except (KeyFileError, ValidationError):
        return None


def _sweep(folder: Path) -> None:
    """Remove what saving left when it did not come to its end, and notes of what was moved away."""
    for file in sorted(folder.iterdir()):
        ours = _OURS.fullmatch(file.name)
        if ours is None:
            continue
        pair = {folder / f"{ours[1]}.json", folder / f"{ours[1]}.snapshot"}
        if file not in pair or not all(one.exists() for one in pair):
            file.unlink(missing_ok=True)


def size_of_store(state_dir: Path) -> int:
    """Bytes of the database and its log of writes."""
    names = FLEET_DATABASE.files.database
    return sum(one.stat().st_size for one in state_dir.glob(f"{names}*") if one.is_file())
