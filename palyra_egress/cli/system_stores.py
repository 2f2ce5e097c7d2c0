"""Where systems keep the certificate authorities that all their programs trust. One table.

Sources: update-ca-certificates(8) of Debian and Alpine, update-ca-trust(8) of Fedora and Red Hat,
and SUSE's update-ca-certificates(8), November 2026.
"""

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class SystemStore:
    """`place` is where an operator's roots belong; `command` lets the system read them again."""

    place: str
    command: tuple[str, ...]

    def directory(self, prefix: Path) -> Path:
        return prefix / self.place


STORES: Final = (
    SystemStore("etc/pki/ca-trust/source/anchors", ("update-ca-trust", "extract")),
    SystemStore("etc/pki/trust/anchors", ("update-ca-certificates",)),
    SystemStore("usr/local/share/ca-certificates", ("update-ca-certificates",)),
)


def store_of(prefix: Path) -> SystemStore | None:
    """The store of the system under `prefix`, or None."""
    return next((store for store in STORES if store.directory(prefix).is_dir()), None)


def write_below(prefix: Path, path: Path, content: bytes) -> None:
    """Put a file that everybody may read at `path`, in one step. Raises OSError.

    An image is a stranger's: a link in it that leads out of `prefix` is refused, and a link in the
    file's own place is replaced and not followed.
    """
    directory = path.parent.resolve(strict=True)
    if not directory.is_relative_to(prefix.resolve(strict=True)):
        raise OSError(errno.EXDEV, f"a link leads out of {prefix}", str(path.parent))
    place = _opened(directory)
    draft = f".{path.name}.new"
    try:
        _remove(draft, place)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, 0o644, dir_fd=place), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        os.rename(draft, path.name, src_dir_fd=place, dst_dir_fd=place)
    finally:
        os.close(place)


def _opened(directory: Path) -> int:
    """A directory by its resolved path, so that no link that came in the meantime is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    place = os.open("/", flags)
    for part in directory.parts[1:]:
        try:
            inner = os.open(part, flags, dir_fd=place)
        finally:
            os.close(place)
        place = inner
    return place


def _remove(name: str, place: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=place)
