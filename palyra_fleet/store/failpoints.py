"""Named points at which a test may end the process. Nothing happens here otherwise.

Code that makes something durable says where it is with `reached("store.before_commit")`. `observer`
is the one seam: only the crash harness sets it, in a process of its own. No environment variable,
setting or command reaches it.
"""

from collections.abc import Callable
from typing import Final

POINTS: Final = (
    "store.before_begin",
    "store.after_records",
    "store.before_commit",
    "store.after_commit",
    "store.before_migration",
    "store.after_migration",
    "store.before_marker",
    "prune.after_archive",
    "prune.before_commit",
    "restore.prepared",
    "restore.set_aside",
    "restore.in_place",
    "core.decided",
    "core.durable",
)
"""Every point there is, as `<room>.<moment>`."""

observer: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """Tell the observer, if there is one."""
    if observer is not None:
        observer(point)
