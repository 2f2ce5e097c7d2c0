"""The audit log on disk: append-only, chained, 0600, and a stop to all forwarding when it fails.

`append` writes the line with one `write` before it returns, so the entry of a verdict exists before
the verdict is released; `sync` makes everything written durable and is called in groups from a
worker thread. The first failed write marks the log broken for good: from then on every `append`
raises and the proxy refuses everything. After a crash the torn last line, if any, is cut off and a
`recovered` entry says how many bytes went. Units: times in Unix milliseconds.
"""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

from palyra_egress.audit.chain import AuditFields, ChainBroken, ChainHead, follow, link
from palyra_egress.errors import OperatorMustAct

_TAIL_BYTES = 1 << 20
_CLOSED = -1


class AuditUnavailable(OperatorMustAct):
    """The log cannot be written. The proxy must refuse."""


class AuditLog:
    """One open log file. Not thread-safe for `append`; `sync` may run in another thread."""

    def __init__(self, path: Path, descriptor: int, head: ChainHead) -> None:
        self._path = path
        self._descriptor = descriptor
        self._head = head
        self._synced_seq = head.seq
        self._broken = False
        self.on_entry: Callable[[AuditFields], None] | None = None

    @classmethod
    def open(cls, path: Path, now_unix_ms: int) -> Self:
        """Open or create the log and continue its chain. Raises ChainBroken or AuditUnavailable."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise AuditUnavailable(f"{path}: cannot open the audit log: {error}") from error
        try:
            _lock(path, descriptor)
            head, torn_bytes = _recover(path, descriptor)
        except OSError as error:
            os.close(descriptor)
            raise AuditUnavailable(f"{path}: cannot recover the audit log: {error}") from error
        except BaseException:
            os.close(descriptor)
            raise
        log = cls(path, descriptor, head)
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
        return self._broken

    @property
    def unsynced(self) -> bool:
        return self._synced_seq < self._head.seq and not self._broken

    def append(self, fields: AuditFields) -> int:
        """Write one entry and return its sequence number. Raises AuditUnavailable."""
        if self._broken:
            raise AuditUnavailable(f"{self._path}: the audit log is closed or failed earlier")
        line, head = link(self._head, fields)
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._broken = True
            raise AuditUnavailable(f"{self._path}: {error.strerror}") from error
        if written != len(line):
            self._broken = True
            raise AuditUnavailable(f"{self._path}: the disk took only a part of a line")
        self._head = head
        if self.on_entry is not None:
            self.on_entry(fields)
        return head.seq

    def sync(self) -> None:
        """Make everything appended so far durable. Raises AuditUnavailable."""
        seq = self._head.seq
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._broken = True
            raise AuditUnavailable(f"{self._path}: {error.strerror}") from error
        self._synced_seq = seq

    def close(self) -> None:
        """Sync what is left and close the file; later appends are refused. May be called twice.

        The descriptor is forgotten: its number may soon be another file's or a peer's socket.
        """
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor == _CLOSED:
            return
        failed, self._broken = self._broken, True
        try:
            if not failed:
                os.fdatasync(descriptor)
                self._synced_seq = self._head.seq
        except OSError as error:
            raise AuditUnavailable(f"{self._path}: {error.strerror}") from error
        finally:
            os.close(descriptor)


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
        return ChainHead(), len(torn)
    if torn:
        os.ftruncate(descriptor, size - len(torn))
    last = whole.rpartition(b"\n")[2]
    return _head_of(last, path), len(torn)


def _head_of(line: bytes, path: Path) -> ChainHead:
    """The head after `line`, which must be right in itself; the whole chain is `audit verify`'s."""
    try:
        entry = json.loads(line)
        before = ChainHead(int(entry["seq"]) - 1, str(entry["previous_sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ChainBroken(f"{path}: the last line is not an audit entry") from error
    _, head = follow(before, line, str(path))
    return head
