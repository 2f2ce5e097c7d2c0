"""The audit log on disk: append-only, chained, 0600, and a stop to all forwarding when it fails.

`append` writes the line with one `write` before it returns, so the entry of a verdict exists before
the verdict is released; `sync` makes everything written durable and is called in groups from a
worker thread. A full disk refuses entries until it has room again: what was written of a line is
taken back first, so the chain goes on unharmed. Any other failure, a failed sync above all, marks
the log broken for good. While nothing can be written every `append` raises and the proxy refuses
everything. After a crash the torn last line, if any, is cut off and a `recovered` entry says how
many bytes went; a log that ends before its newest checkpoint was cut by somebody and is refused.
Units: times in Unix milliseconds, sizes in bytes.
"""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from palyra_egress.audit.chain import (
    AuditFields,
    ChainBroken,
    ChainHead,
    claimed_before,
    follow,
    link,
)
from palyra_egress.audit.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from palyra_egress.audit.segments import (
    checkpoint_file,
    full_segments,
    set_aside,
    undo_half_rotation,
)
from palyra_egress.errors import OperatorMustAct
from palyra_fleet.wire.keys import SigningKey

CHECKPOINT_EVERY_MS: Final = 60_000
CHECKPOINT_EVERY_ENTRIES: Final = 10_000
_TAIL_BYTES: Final = 1 << 20
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED: Final = -1


class AuditUnavailable(OperatorMustAct):
    """The log cannot be written. The proxy must refuse."""


class AuditLog:
    """One open log. All but `sync` belong to one thread; `sync` may run in another, except while
    the log is `rotate`d or closed."""

    def __init__(
        self, path: Path, descriptor: int, head: ChainHead, key: SigningKey, now_unix_ms: int
    ) -> None:
        self._path = path
        self._descriptor = descriptor
        self._head = head
        self._key = key
        self._size = os.fstat(descriptor).st_size
        self._first_seq = head.seq + 1
        self._synced_seq = head.seq
        self._broken = self._full = False
        self._checkpoint: Checkpoint | None = None
        self._covered_seq, self._covered_at_unix_ms = head.seq, now_unix_ms
        self._saved_checkpoint: Checkpoint | None = None
        self.on_entry: Callable[[AuditFields], None] | None = None

    @classmethod
    def open(cls, path: Path, key: SigningKey, now_unix_ms: int) -> Self:
        """Open or create the log and continue its chain. `key` signs its checkpoints.

        Raises ChainBroken where the log is not what was written, AuditUnavailable where it cannot
        be used.
        """
        descriptor = _open_for_append(path)
        try:
            _lock(path, descriptor)
            undo_half_rotation(path)
            head, torn_bytes = _recover(path, descriptor)
            _compare_with_checkpoint(path, head, key)
            log = cls(path, descriptor, head, key, now_unix_ms)
            log._first_seq = _first_seq(descriptor, head)
        except OSError as error:
            os.close(descriptor)
            raise AuditUnavailable(f"{path}: cannot recover the audit log: {error}") from error
        except BaseException:
            os.close(descriptor)
            raise
        if torn_bytes:
            log.append(
                {"kind": "recovered", "at_unix_ms": now_unix_ms, "torn_bytes_dropped": torn_bytes}
            )
        return log

    @property
    def head(self) -> ChainHead:
        return self._head

    @property
    def broken(self) -> bool:
        """Whether no entry will be taken any more until the proxy is started again."""
        return self._broken

    @property
    def problem(self) -> str | None:
        """What is wrong, for readiness; None while entries are taken."""
        if self._broken:
            return "the audit log cannot be written; start the proxy again when it can"
        return "there is no room for the audit log" if self._full else None

    @property
    def unsynced(self) -> bool:
        return self._synced_seq < self._head.seq and not self._broken

    @property
    def size_bytes(self) -> int:
        """Of the file that is written now."""
        return self._size

    def append(self, fields: AuditFields) -> int:
        """Write one entry and return its sequence number. Raises AuditUnavailable."""
        if self._broken:
            raise AuditUnavailable(f"{self._path}: the audit log is closed or failed earlier")
        line, head = link(self._head, fields)
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._take_back(error.errno or 0)
            raise AuditUnavailable(f"{self._path}: {error.strerror}") from error
        if written != len(line):
            self._take_back(errno.ENOSPC)
            raise AuditUnavailable(f"{self._path}: the disk took only a part of a line")
        self._head, self._full = head, False
        self._size += len(line)
        if self.on_entry is not None:
            self.on_entry(fields)
        return head.seq

    def _take_back(self, code: int) -> None:
        """After a write that failed: leave whole lines only, or never write again."""
        self._full = code in _NO_ROOM
        self._broken = not self._full
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._broken = True

    def checkpoint_due(self, now_unix_ms: int) -> bool:
        """Whether enough entries or time have gone since the last checkpoint, or since the log was
        opened. A clock that was set back does not put it off."""
        since = self._head.seq - self._covered_seq
        if since <= 0 or self._broken:
            return False
        waited_ms = now_unix_ms - self._covered_at_unix_ms
        return since >= CHECKPOINT_EVERY_ENTRIES or not 0 <= waited_ms < CHECKPOINT_EVERY_MS

    def checkpoint(self, now_unix_ms: int) -> None:
        """Sign where the chain stands, if it has moved since; the next `sync` also writes it beside
        the log. Raises AuditUnavailable."""
        if self._head.seq == self._covered_seq:
            return
        signed = Checkpoint.sign(self._head, now_unix_ms, self._key)
        self.append(signed.fields)
        self._checkpoint = signed
        self._covered_seq, self._covered_at_unix_ms = self._head.seq, now_unix_ms

    def sync(self) -> None:
        """Make everything appended so far durable, then the checkpoint. Raises AuditUnavailable."""
        seq, newest = self._head.seq, self._checkpoint
        try:
            os.fdatasync(self._descriptor)
            if newest is not None and newest is not self._saved_checkpoint:
                write_checkpoint(checkpoint_file(self._path), newest)
                self._saved_checkpoint = newest
        except OSError as error:
            self._broken = True
            raise AuditUnavailable(f"{self._path}: {error.strerror}") from error
        self._synced_seq = seq

    def rotate(self) -> Path:
        """Set the file aside as a full one and go on in a new one. Raises AuditUnavailable.

        Returns the full file's path. What is not synced yet is synced first.
        """
        fresh = self._path.with_name(self._path.name + ".new")
        self.sync()
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            _lock(fresh, descriptor)
            full = set_aside(self._path, self._first_seq, fresh)
        except OSError as error:
            self._broken = True
            raise AuditUnavailable(f"{self._path}: cannot rotate: {error.strerror}") from error
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._size, self._first_seq = 0, self._head.seq + 1
        return full

    def close(self) -> None:
        """Sync what is left and close the file; later appends are refused. May be called twice.

        The descriptor is forgotten: its number may soon be another file's or a peer's socket.
        """
        descriptor = self._descriptor
        if descriptor == _CLOSED:
            return
        try:
            if not self._broken:
                self.sync()
        finally:
            self._descriptor, self._broken = _CLOSED, True
            os.close(descriptor)


def _open_for_append(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise AuditUnavailable(f"{path}: cannot open the audit log: {error}") from error


def _lock(path: Path, descriptor: int) -> None:
    """Two writers would break the chain: the second is refused."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AuditUnavailable(f"{path}: another process writes this audit log") from error


def _recover(path: Path, descriptor: int) -> tuple[ChainHead, int]:
    """The head of an existing log and the number of torn bytes cut from its end."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(descriptor, size - start, start)
    whole, newline, torn = tail.rpartition(b"\n")
    if not newline:
        if start:
            raise ChainBroken(f"{path}: the last line is longer than {_TAIL_BYTES} bytes")
        os.ftruncate(descriptor, 0)
        return _head_of_full(path), len(torn)
    if torn:
        os.ftruncate(descriptor, size - len(torn))
    return _head_of(whole.rpartition(b"\n")[2], path), len(torn)


def _head_of_full(path: Path) -> ChainHead:
    """Where a log with an empty file goes on: after its newest full file, or at the beginning."""
    for full in full_segments(path)[-1:]:
        with full.open("rb") as lines:
            lines.seek(max(0, full.stat().st_size - _TAIL_BYTES))
            whole, newline, torn = lines.read().rpartition(b"\n")
        if torn or not newline:
            raise ChainBroken(f"{full}: the last line is torn")
        return _head_of(whole.rpartition(b"\n")[2], full)
    return ChainHead()


def _head_of(line: bytes, path: Path) -> ChainHead:
    """The head after `line`, which must be right in itself; the whole chain is `audit verify`'s."""
    _, head = follow(claimed_before(line, str(path)), line, str(path))
    return head


def _first_seq(descriptor: int, head: ChainHead) -> int:
    """The sequence number of the file's first entry, which gives the full file its name."""
    first, newline, _ = os.pread(descriptor, _TAIL_BYTES, 0).partition(b"\n")
    return claimed_before(first, "the first line").seq + 1 if newline else head.seq + 1


def _compare_with_checkpoint(path: Path, head: ChainHead, key: SigningKey) -> None:
    """A log that ends before its newest checkpoint has lost entries that were durable."""
    file = checkpoint_file(path)
    try:
        newest = read_checkpoint(file)
    except FileNotFoundError:
        return
    newest.check(key.public_key, str(file))
    covers = newest.covers
    if head.seq < covers.seq or (head.seq == covers.seq and head != covers):
        raise ChainBroken(
            f"{path}: ends with entry {head.seq}, but {file} says that entry {covers.seq} was"
            " written: the end was cut off or replaced. Keep both files for the investigation;"
            " move them away to begin a new log"
        )
