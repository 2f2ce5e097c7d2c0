"""Deletes one directory tree, as a script of its own, so that it can be ended if it takes long.

Called with the directory as its only argument. Files without permissions are included; no symbolic
link is followed out. Exits 0 only if nothing has that name any more.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path


def remove_tree(root: Path) -> bool:
    """True only if the directory is gone."""
    shutil.rmtree(root, ignore_errors=True)
    if root.is_dir():
        _open_up(root)
        shutil.rmtree(root, ignore_errors=True)
    return not os.path.lexists(root)


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


if __name__ == "__main__":
    sys.exit(0 if remove_tree(Path(sys.argv[1])) else 1)
