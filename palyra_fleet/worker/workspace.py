"""A run's own directory: made empty and private (0700), and provably gone afterwards.

`remove` deletes whatever the program left there, files without permissions included, never
following a symbolic link out, for so long and no longer, and then looks: True only if nothing has
that name any more.
"""

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.wire.models import WorkspaceScopeModel
from palyra_fleet.worker import workspace_removal

REMOVE_WITHIN_S: Final = 60.0
_REMOVAL: Final = Path(workspace_removal.__file__).resolve()


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

    async def remove(self, within_s: float = REMOVE_WITHIN_S) -> bool:
        """Delete everything; True only if it is gone in time, and was what `create` made to the
        end. Done by a process of its own, which is ended when it takes too long: a program may have
        made more files than anybody wants to wait for."""
        if self.root.is_symlink():
            self.root.unlink(missing_ok=True)  # where the program took its files, nobody knows
            return False
        try:
            removal = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_REMOVAL), str(self.root)), env={}
            )
        except OSError:
            return False
        try:
            async with asyncio.timeout(within_s):
                await removal.wait()
        except TimeoutError:
            return False
        finally:
            if removal.returncode is None:
                removal.kill()
                await removal.wait()
        return not await asyncio.to_thread(os.path.lexists, self.root)
