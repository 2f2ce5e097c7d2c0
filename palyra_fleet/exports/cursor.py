"""How far a receiver has the event log: one small durable file for each.

It holds the number and the digest of the last entry that was taken. The digest tells whether the
log is still the one that was exported: a fleet that was restored from a backup goes on from an
older entry, and must not pass over what it writes from there on.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from palyra_fleet.private_files import read_private, replace
from palyra_fleet.store.event_chain import GENESIS
from palyra_fleet.wire.keys import KeyFileError

MAX_BYTES: Final = 1_024
_DIGEST_LENGTH: Final = 64


@dataclass(slots=True)
class Cursor:
    """Moves in memory, and is made durable by `save`."""

    path: Path
    seq: int = 0
    sha256: str = GENESIS
    saved_seq: int = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """What the file says; the beginning if there is none, or none that can be read: then
        everything is sent again, which a receiver of at-least-once has to take anyway."""
        try:
            said = json.loads(read_private(path, MAX_BYTES))
            seq, sha256 = said["seq"], said["sha256"]
        except (KeyFileError, ValueError, KeyError, TypeError):
            return cls(path)
        if not isinstance(seq, int) or not isinstance(sha256, str) or len(sha256) != _DIGEST_LENGTH:
            return cls(path)
        return cls(path, seq, sha256, seq)

    def move(self, seq: int, sha256: str) -> None:
        self.seq, self.sha256 = seq, sha256

    def begin_again(self) -> None:
        self.move(0, GENESIS)

    @property
    def is_saved(self) -> bool:
        return self.saved_seq == self.seq

    def save(self) -> None:
        """Durable when this returns. Raises OSError."""
        seq, sha256 = self.seq, self.sha256
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(self.path, json.dumps({"seq": seq, "sha256": sha256}).encode() + b"\n")
        self.saved_seq = seq
