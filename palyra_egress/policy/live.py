"""A policy file that may change while the program runs.

`PolicyFile.poll` looks at the file (following symlinks, so that a swapped link is a change) and, if
device, inode, size or modification time differ from the last look, reads and validates it. Output:
a new `CompiledPolicy` to put in force, or None if there is nothing new or the new text is not good;
then `problem` says why and the last good policy stays. Invariants: nothing half-read is ever
returned (a file that changes while it is read is read again at the next poll), a bad or vanished
file never replaces a good policy, and `problem` is None exactly when the newest text is in force.
It reads no clock and starts no thread: the caller decides how often to poll, and polls in a thread
of its own, because a file of thousands of rules takes seconds to read.
"""

from pathlib import Path

from palyra_egress.policy.compile import CompiledPolicy, policy_digest
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.load import load_policy, read_policy_bytes

type Stamp = tuple[int, int, int, int, int, str]


class PolicyFile:
    """The last good policy of one path, and what is wrong with the newest text, if anything."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.policy: CompiledPolicy | None = None
        self.problem: str | None = "the policy file has not been read yet"
        self._stamp: Stamp | None = None

    def _look(self) -> Stamp | None:
        """What identifies the file's present content without reading it; None if it is gone."""
        try:
            real = self.path.resolve()
            found = real.stat()
        except OSError:
            return None
        times = (found.st_mtime_ns, found.st_ctime_ns)
        return (found.st_dev, found.st_ino, found.st_size, *times, str(real))

    def poll(self) -> CompiledPolicy | None:
        """The new policy if there is one that is good; otherwise None."""
        stamp = self._look()
        if stamp is None:
            self._stamp = None
            self.problem = f"{self.path}: the policy file is gone or cannot be read"
            return None
        if stamp == self._stamp:
            return None
        try:
            source = read_policy_bytes(self.path)
            if self._look() != stamp:
                return None
            self._stamp = stamp
            if self.policy is not None and policy_digest(source) == self.policy.digest:
                self.problem = None
                return None
            policy = load_policy(source, str(self.path))
        except PolicyFileError as error:
            self.problem = str(error)
            return None
        self.policy = policy
        self.problem = None
        return policy
