"""The file of approval rules while the fleet runs: looked at often, the last good one kept.

A bad file is refused at the start. `poll` reads the file again if device, inode, size or time
of change differ; a bad or vanished file never replaces good rules, and `problem` says what is wrong
until the newest text is in force. It reads no clock and starts no thread; the caller polls in one.
"""

import os
from pathlib import Path

from palyra_fleet.leases.approval_file import MAX_BYTES, ApprovalFileError, read_approvals
from palyra_fleet.leases.approval_rules import ApprovalRules
from palyra_fleet.trusted_files import UntrustedFile, read_edited

type _Stamp = tuple[int, int, int, int]


class ApprovalRuleFile:
    """The rules of one path. Making one reads it, and raises ApprovalFileError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._stamp: _Stamp | None = None
        self.rules = self._read()

    @property
    def alarm(self) -> str | None:
        """For people; says nothing of the file, since health is open to anybody."""
        return self.problem and "the newest approval rules are not in force; see the fleet's log"

    def poll(self) -> None:
        """Read the file again if it changed; `rules` are those of the newest text that is good."""
        try:
            if self._stamp is not None and _stamp(self.path.stat()) == self._stamp:
                return
            self.rules, self.problem = self._read(), None
        except OSError as error:
            self._stamp = None
            self.problem = f"{self.path}: cannot be read: {error.strerror}"
        except ApprovalFileError as error:
            self.problem = str(error)

    def _read(self) -> ApprovalRules:
        try:
            source, found = read_edited(self.path, MAX_BYTES)
        except FileNotFoundError:
            self._stamp = None
            raise ApprovalFileError(f"{self.path}: is not there") from None
        except UntrustedFile as error:
            self._stamp = None
            raise ApprovalFileError(str(error)) from None
        except OSError as error:
            self._stamp = None
            raise ApprovalFileError(f"{self.path}: cannot be read: {error.strerror}") from error
        self._stamp = _stamp(found)
        return read_approvals(source, str(self.path)).rules


def followed(path: Path | None) -> ApprovalRuleFile | None:
    """The file, its rules read. Raises ApprovalFileError."""
    return None if path is None else ApprovalRuleFile(path)


def _stamp(found: os.stat_result) -> _Stamp:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
