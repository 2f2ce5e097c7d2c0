"""The files of one audit log: `audit.jsonl` is written, `audit.<first seq>.jsonl` are full.

The chain runs on from file to file, so a full one may be moved to cheaper storage or, when its time
is over, deleted from the oldest on: what is left still verifies, and says where it begins. Names
carry the first sequence number with twelve digits, so that they sort by age.
"""

import os
import re
from pathlib import Path
from typing import Final

from palyra_fleet.private_files import sync_directory

DEFAULT_SEGMENT_BYTES: Final = 256 * 1024 * 1024


def checkpoint_file(log: Path) -> Path:
    """Where the newest checkpoint of a log stands."""
    return log.with_name(log.stem + ".checkpoint.json")


def full_segments(log: Path) -> list[Path]:
    """The full files of a log, oldest first."""
    name = re.compile(rf"{re.escape(log.stem)}\.[0-9]{{12}}{re.escape(log.suffix)}")
    return sorted(file for file in log.parent.glob("*") if name.fullmatch(file.name))


def segments(path: Path) -> list[Path]:
    """What to read for `path`, oldest first: a log with its full files, or one full file alone.

    A full file is never the sibling of another log: only of the one it was written for.
    """
    return [*full_segments(path), path]


def set_aside(log: Path, first_seq: int, fresh: Path) -> Path:
    """Give the full log its name and put `fresh` in its place; the log's path is never without a
    file. Returns the full file's path. Raises OSError."""
    full = log.with_name(f"{log.stem}.{first_seq:012d}{log.suffix}")
    os.link(log, full)
    fresh.replace(log)
    sync_directory(log.parent)
    return full


def undo_half_rotation(log: Path) -> None:
    """A crash between the two steps of `set_aside` left one file under two names."""
    for full in full_segments(log)[-1:]:
        if full.samefile(log):
            full.unlink()
