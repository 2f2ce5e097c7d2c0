"""A run's own directory: made empty and private (0700), and provably gone afterwards.

`remove` deletes whatever the program left there, files without permissions included, never
following a symbolic link out, and then looks: True only if nothing has that name any more.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
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
        """Delete everything; True only if it is gone."""
        shutil.rmtree(self.root, onexc=_open_up_and_retry)
        return not os.path.lexists(self.root)


def _open_up_and_retry(action: Callable[..., object], path: str, error: BaseException) -> None:
    """Give the owner back the rights the program took away, and try once more."""
    if isinstance(error, FileNotFoundError):
        return
    parent = Path(path).parent
    try:
        parent.chmod(0o700)
        if not Path(path).is_symlink():
            Path(path).chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            Path(path).unlink(missing_ok=True)
    except OSError:
        del action  # what is still there is seen by the look afterwards
