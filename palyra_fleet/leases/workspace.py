"""WorkerWorkspaceScope: the directories a run may touch.

Decides from text alone whether a scope is well formed: every path absolute, normalised (no `.`,
`..`, doubled or trailing slash, NUL or control character), inside its root, and the root inside the
fleet's. Whether a path is a symbolic link only the worker's host can know, so the worker runtime
resolves and enforces; a scope that passed here may still be refused there.
"""

import posixpath
from dataclasses import dataclass


def _normal_absolute(path: str) -> bool:
    if not path.startswith("/") or path.startswith("//"):
        return False
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in path):
        return False
    return "\\" not in path and posixpath.normpath(path) == path


def _inside(path: str, root: str) -> bool:
    return root in {"/", path} or path.startswith(root + "/")


@dataclass(frozen=True, slots=True)
class WorkerWorkspaceScope:
    """A root, the paths below it a run may use, and whether it may only read."""

    workspace_root: str
    allowed_paths: tuple[str, ...]
    read_only: bool = False

    def problem(self, fleet_root: str = "/") -> str | None:
        """What is wrong with the scope, or None. An empty list of paths allows nothing."""
        if not _normal_absolute(self.workspace_root) or self.workspace_root == "/":
            return "workspace_root must be an absolute, normalised path below /"
        if not _inside(self.workspace_root, fleet_root):
            return "workspace_root must be inside the fleet's workspace root"
        if not self.allowed_paths:
            return "allowed_paths must name at least one path"
        for path in self.allowed_paths:
            if not _normal_absolute(path):
                return "allowed_paths must be absolute, normalised paths"
            if not _inside(path, self.workspace_root):
                return "allowed_paths must be inside workspace_root"
        return None
