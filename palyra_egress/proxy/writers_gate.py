"""Which policies may be in force here, by who may change their files.

Who can write a policy decides what workers reach. Teams edit one together, so a file may be
anybody's and its group's to write; a file, a folder it lies in, or one on the way to what it
includes, that everybody on the machine can write is refused, with its mode and what to run.
Blocking; `PolicyFile` asks it in a thread.
"""

from collections.abc import Iterable
from pathlib import Path

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.live import told_of
from palyra_egress.policy.load import PolicyFiles
from palyra_fleet.trusted_files import UntrustedFile, check_edited, look_at_edited


class WritersGate:
    """A `PolicyGate`; remembers nothing."""

    def look(self, paths: Iterable[Path]) -> object:
        """Whose the files and the folders on the way to them are, and who may write to them: a
        folder that is opened, or mended, shows at no file."""
        known = tuple(paths)
        below = known[0].parent if known else None
        return tuple(look_at_edited(path, below) for path in known)

    def refusal(self, files: PolicyFiles, _policy: CompiledPolicy) -> str | None:
        """The first file that everybody can change."""
        below = next((path.parent for path in files.looks), None)
        for path in files.looks:
            try:
                check_edited(path, below)
            except UntrustedFile as error:
                return str(error)
            except OSError as error:
                return told_of(error)
        return None
