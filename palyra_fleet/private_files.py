"""Files for their owner only: read with suspicion, replaced in one durable step.

`read_private` refuses what others may read or write, what belongs to another account, what is not a
regular file (also a symlink where none is expected) and what is larger than it may be. What the
service manager hands over (`credential`) may belong to root, who reads everything, and may be
readable for our group or by an access list, which the mode shows as the group; never for others,
and writable for nobody. `replace`
writes a new file beside the old one, makes it durable, and renames it: whoever reads sees the old
bytes or the new ones, also after `kill -9` or a loss of power. `exclusive` is how writers take
turns. Sources: `rename(2)`, `fsync(2)`, `flock(2)`; systemd.exec(5), "Credentials".
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from palyra_fleet.wire.keys import KeyFileError

_OTHERS = 0o077
_NOT_OF_A_CREDENTIAL = 0o337
"""Of what a service manager handed over: nobody writes or runs it, others do not read it."""
_CREDENTIALS = "CREDENTIALS_DIRECTORY"

OPERATOR_TOKEN: Final = "palyra.operator-token"  # noqa: S105 (a name)
NODES_KEY: Final = "palyra.nodes-key"
VAULT_KEY: Final = "palyra.vault-key"
"""What a service manager may hand over, by the name it has there."""


class FileStamp(NamedTuple):
    """What identifies a file's present content without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def stamp(path: Path) -> FileStamp | None:
    """The stamp of a file, symlinks followed; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return stamp_of(found)


def stamp_of(found: os.stat_result) -> FileStamp:
    """The stamp in what `stat` answered."""
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return FileStamp(found.st_dev, found.st_ino, found.st_size, *times)


def read_private(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file of ours, mode 0600 or stricter. Raises KeyFileError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyFileError(f"{path}: does not exist") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        _check_private(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise KeyFileError(f"{path}: is larger than {max_bytes} bytes")
    return content


def credential(name: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file of this name that the service manager handed over (`LoadCredential=`), if it did."""
    directory = environment.get(_CREDENTIALS)
    if not directory:
        return None
    path = Path(directory) / name
    return path if os.path.lexists(path) else None


def _is_handed_over(path: Path, found: os.stat_result) -> bool:
    directory = os.environ.get(_CREDENTIALS)
    return (
        bool(directory)
        and path.parent == Path(directory or "")
        and found.st_uid == 0
        and not found.st_mode & _NOT_OF_A_CREDENTIAL
    )


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyFileError(f"{path}: is not a regular file")
    if _is_handed_over(path, found):
        return
    if found.st_uid != os.geteuid():
        raise KeyFileError(f"{path}: belongs to another user; expected one of ours")
    if found.st_mode & _OTHERS:
        mode = found.st_mode & 0o777
        raise KeyFileError(f"{path}: mode {mode:o} is too open; run: chmod 600 on it")


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` at `path` in one step, durable when this returns.

    Callers hold `exclusive`, or are the only writer: what a killed writer left of the new file is
    written over.
    """
    _draft(path, content, mode).replace(path)
    sync_directory(path.parent)


def create(path: Path, content: bytes) -> None:
    """As `replace`, where nothing may be yet: raises FileExistsError if something is."""
    draft = _draft(path, content)
    try:
        path.hardlink_to(draft)
    finally:
        draft.unlink()
    sync_directory(path.parent)


def _draft(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """The new file beside the old one, durable but for its name."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
        file.write(content)
        if mode != 0o600:
            os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    return draft


def sync_directory(directory: Path) -> None:
    """Make names that were added, renamed or removed in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Be the only one who holds the lock file at `path`; waits its turn. The lock ends with the
    process that holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
