"""GenerationFile: a file that is replaced whole, with the two before it kept.

`write` first sets the present file aside as `.1` (and `.1` as `.2`), by a hard link, so that the
file's own name always holds whole bytes; then it replaces it durably. `kill -9` at any moment
leaves the old file or the new one. A failed write either changed nothing, or nobody knows: then
`WriteFailed.ambiguous` says so, and the caller must not go on as if it knew.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.private_files import read_private, replace, stamp
from palyra_fleet.wire.keys import KeyFileError

KEPT: Final = 2
MAX_FILE_BYTES: Final = 256 * 1024 * 1024


class WriteFailed(Exception):
    """The write failed. `ambiguous`: the new bytes may be there all the same."""

    def __init__(self, text: str, ambiguous: bool) -> None:
        super().__init__(text)
        self.ambiguous = ambiguous


@dataclass(frozen=True, slots=True)
class GenerationFile:
    """The file at `path`, and the ones before it beside it. One writer at a time."""

    path: Path

    def kept(self) -> tuple[Path, ...]:
        """Where earlier generations lie, the newest first, whether they exist or not."""
        return tuple(
            self.path.with_name(f"{self.path.name}.{number}") for number in range(1, KEPT + 1)
        )

    def read(self, path: Path | None = None) -> bytes | None:
        """The bytes, None if there is no such file. Raises KeyFileError if it is not safe."""
        wanted = path or self.path
        return read_private(wanted, MAX_FILE_BYTES) if os.path.lexists(wanted) else None

    def write(self, content: bytes) -> None:
        """Durable when this returns. Raises WriteFailed."""
        if len(content) > MAX_FILE_BYTES:
            raise WriteFailed(f"{self.path}: would be larger than {MAX_FILE_BYTES} bytes", False)
        before = stamp(self.path)
        try:
            self._set_aside()
            before = stamp(self.path)
            replace(self.path, content)
        except OSError as error:
            text = f"{self.path}: cannot be written: {error.strerror}"
            raise WriteFailed(text, stamp(self.path) != before) from error

    def last_good(self, is_good: Callable[[bytes], object]) -> Path | None:
        """The newest earlier generation that `is_good` reads without an exception of its own."""
        for path in self.kept():
            try:
                content = self.read(path)
                if content is not None:
                    is_good(content)
                    return path
            except (KeyFileError, ValueError):
                continue
        return None

    def _set_aside(self) -> None:
        if not self.path.exists():
            return
        newest, *older = self.kept()
        if newest.exists() and newest.samefile(self.path):
            return  # a write that failed has set it aside: trying again costs no generation
        for path, place in zip(reversed((newest, *older[:-1])), reversed(older), strict=True):
            if path.exists():
                path.replace(place)
        newest.unlink(missing_ok=True)
        os.link(self.path, newest)
