"""A run's own directory: made empty and private (0700), and provably gone afterwards.

`remove` deletes whatever the program left there, files without permissions included, never
following a symbolic link out, and then looks: True only if nothing has that name any more.
"""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from palyra_fleet.wire.models import WorkspaceScopeModel


@dataclass(frozen=True, slots=True)
class Workspace:
    """The directory, by its absolute path without symbolic links."""

    root: Path

    @classmethod
    def create(cls, parent: Path | None = None) -> "Workspace":
        made = tempfile.mkdtemp(prefix="palyra-run-", dir=parent)
        root = Path(made).resolve()
        (root / "tmp").mkdir(mode=0o700)
        return cls(root)

    @property
    def temporary(self) -> Path:
        """Where the program's temporary files go (TMPDIR)."""
        return self.root / "tmp"

    def scope(self) -> WorkspaceScopeModel:
        """The scope to ask a lease for: all of the directory and nothing else."""
        return WorkspaceScopeModel(workspace_root=str(self.root), allowed_paths=(str(self.root),))

    def remove(self) -> bool:
        """Delete everything; True only if it is gone, and was what `create` made to the end."""
        if self.root.is_symlink():
            self.root.unlink(missing_ok=True)  # where the program took its files, nobody knows
            return False
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.is_dir():
            _open_up(self.root)
            shutil.rmtree(self.root, ignore_errors=True)
        return not os.path.lexists(self.root)


def _open_up(root: Path) -> None:
    """Give the owner back the rights the program took away: on directories at and below `root`
    only, never through a link. What still cannot be deleted is seen by the look afterwards."""
    with contextlib.suppress(OSError):
        root.chmod(0o700)
    for directory, names, _ in os.walk(root, followlinks=False):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)
