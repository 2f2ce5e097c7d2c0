"""A policy file, with all that it includes, that may change while the program runs.

`PolicyFile.poll` looks at every file of the policy (following symlinks, so that a swapped link is a
change; also at those that were missing) and, if device, inode, size or modification time of any
differ from the last look, reads and validates them all. Output: a new `CompiledPolicy` to put in
force, or None if there is nothing new or the new text is not good; then `problem` says why and the
last good policy stays. Invariants: nothing half-read is ever returned (where a file changes while
they are read, all are read again at the next poll), a bad or vanished file never replaces a good
policy, and `problem` is None exactly when the newest text is in force. A `PolicyGate` may demand
more of a good policy than its text: what it refuses is treated as a bad file is, and it is asked
again when what it looks at has changed, as who may write to a folder. What could not be read for a
reason that may pass (no descriptors left) is read again at each poll. A text is compiled once,
however often its gate is asked. It reads no clock and starts no thread: the caller decides how
often to poll, and polls in a thread of its own, because files of thousands of rules take seconds to
read.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError, Problem
from palyra_egress.policy.load import (
    PolicyFiles,
    Stamp,
    is_at_rest,
    load_files,
    look,
    may_pass,
    read_files,
)


class PassingRefusal(str):
    """A gate's refusal for a reason that may pass with no file changed: the gate is asked again at
    the next poll."""

    __slots__ = ()


def told_of(error: Exception) -> str:
    """What a gate says of an error that it met."""
    return PassingRefusal(error) if may_pass(error) else str(error)


class PolicyGate(Protocol):
    """What must agree before a policy that is good in itself is put in force."""

    def look(self, paths: Iterable[Path]) -> object:
        """What the gate goes by beside the text, without asking it: it is worth asking again where
        this is another (`==`) than it was. `paths` are the policy's files."""

    def refusal(self, files: PolicyFiles, policy: CompiledPolicy) -> str | None:
        """Why this policy may not be in force; None if it may, which is then remembered."""


class EveryGate:
    """Several gates as one: the first that refuses is heard, and only if none before it did is the
    next one asked. So a gate that remembers what it let pass stands last."""

    def __init__(self, *gates: PolicyGate) -> None:
        self._gates = gates

    def look(self, paths: Iterable[Path]) -> object:
        known = tuple(paths)
        return tuple(gate.look(known) for gate in self._gates)

    def refusal(self, files: PolicyFiles, policy: CompiledPolicy) -> str | None:
        refusals = (gate.refusal(files, policy) for gate in self._gates)
        return next((refusal for refusal in refusals if refusal is not None), None)


class PolicyFile:
    """The last good policy of one path, and what is wrong with the newest text, if anything:
    `problem` in words, `found` with its places, empty where it is about no line."""

    def __init__(self, path: str | Path, gate: PolicyGate | None = None) -> None:
        self.path = Path(path)
        self.gate = gate
        self.policy: CompiledPolicy | None = None
        self.problem: str | None = "the policy file has not been read yet"
        self.found: tuple[Problem, ...] = ()
        self._looks: dict[Path, Stamp | None] = {}
        self._gates_look: object = None
        self._newest: CompiledPolicy | None = None

    def poll(self) -> CompiledPolicy | None:
        """The new policy if there is one that is good; otherwise None."""
        if look(self.path) is None:
            self._looks, self.found = {}, ()
            self.problem = f"{self.path}: the policy file is gone or cannot be read"
            return None
        if not self.path.is_file():  # a pipe would hold us until somebody writes, perhaps for ever
            self._looks, self.found = {}, ()
            self.problem = f"{self.path}: the policy file is no regular file"
            return None
        if self._looks and is_at_rest(self._looks) and self._look_of_gate() == self._gates_look:
            return None
        self._looks = {}  # what cannot be read now, or changes meanwhile, is read at the next poll
        try:
            files = read_files(self.path, str(self.path))
            if not is_at_rest(files.looks):
                return None
            self._looks = files.looks
            self._gates_look = self._look_of_gate()
            if files.may_pass:
                self._looks = {}
            policy = self._newest = self._compiled(files)
        except PolicyFileError as error:
            self.problem, self.found = str(error), error.problems
            return None
        self.found = ()
        self.problem = None if self.gate is None else self.gate.refusal(files, policy)
        if isinstance(self.problem, PassingRefusal):
            self._looks = {}
        if self.problem is not None or policy is self.policy:
            return None
        self.policy = policy
        return policy

    def _look_of_gate(self) -> object:
        return None if self.gate is None else self.gate.look(self._looks)

    def _compiled(self, files: PolicyFiles) -> CompiledPolicy:
        """The policy of these files; the one in force, or the one that the gate refused last, where
        it is that. Raises PolicyFileError."""
        for known in (self.policy, self._newest):
            if known is not None and files.is_whole and files.digest == known.digest:
                return known
        return load_files(files)
