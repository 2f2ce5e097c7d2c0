"""Files that we go by and that are no secret: only certain people may change what they say.

Whoever can write to a file of roots decides whom we trust; so can whoever may put another file in
its place, or lead a link on the way to it elsewhere. `read_trusted` refuses a file that belongs to
somebody else or that group or others may write to, and the same of the folder in which it really
lies, of every link that is followed on the way there, and of the folder in which such a link lies.
A folder with the sticky bit may be open (`/tmp`, a secret's volume in Kubernetes): what is in it is
only its owner's to replace. Folders further up are not looked at. `look_at` changes whenever the
content, an owner or a mode of these does. Files that people edit together (policies, approval
rules, settings) may be anybody's and their group's to write: `read_edited` and `check_edited`
refuse only what everybody may change.
Sources: open(2), inode(7) on the sticky bit, path_resolution(7). Blocking.
"""

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from palyra_fleet.private_files import FileStamp, stamp_of

_MOST_LINKS: Final = 40


class _Rule(NamedTuple):
    """Who may change a file: its mode bits that must be clear, whether its owner must be us or
    root, and how both are told."""

    must_not_write: int
    is_ours: bool
    whom: str
    who: str
    mend: str


_OURS: Final = _Rule(stat.S_IWGRP | stat.S_IWOTH, True, "others", "its owner", "chmod go-w")
_A_TEAMS: Final = _Rule(stat.S_IWOTH, False, "everybody", "its owner and group", "chmod o-w")


class UntrustedFile(Exception):
    """Somebody else may change what this file says, or it is none; the text says who and where."""


class TrustedLook(NamedTuple):
    """A file's stamp, and owner and mode of the links to it and of the folders of all of them."""

    stamp: FileStamp | None
    way: tuple[tuple[int, int] | None, ...]


class _Way(NamedTuple):
    """Where a file really lies, by which links, and the folders of both."""

    real: Path
    links: tuple[Path, ...]
    folders: tuple[Path, ...]


def look_at(path: Path) -> TrustedLook:
    """What identifies a file's present content and who may change it, without reading it."""
    try:
        way = _way_to(path)
        found = stamp_of(way.real.lstat())
    except (OSError, UntrustedFile):
        return TrustedLook(None, (_owner_and_mode(path.parent),))
    return TrustedLook(found, tuple(_owner_and_mode(one) for one in (*way.links, *way.folders)))


def read_trusted(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """The bytes of a file that only we and root can change, and what else is known of it; links are
    followed. Raises UntrustedFile, or OSError for what cannot be read."""
    return _read(path, max_bytes, _OURS)


def read_edited(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Likewise, of a file that people edit together: refused is what everybody can change."""
    return _read(path, max_bytes, _A_TEAMS)


def check_edited(path: Path, below: Path | None = None) -> None:
    """Look at who may change a file that people edit together, without reading it; and, of one that
    is named from a folder, who may change the folders on the way from there (`below`). Raises
    UntrustedFile, or OSError where it leads to nothing."""
    way = _checked_way(path, _A_TEAMS)
    _check_file(way.real, way.real.lstat(), _A_TEAMS)
    for folder in _folders_between(path, below):
        _check_folder(path, folder, _A_TEAMS)


def look_at_edited(
    path: Path, below: Path | None = None
) -> tuple[TrustedLook, tuple[tuple[int, int] | None, ...]]:
    """As `look_at`, of all that `check_edited` looks at."""
    between = tuple(
        _owner_and_mode(folder, is_followed=True) for folder in _folders_between(path, below)
    )
    return look_at(path), between


def _folders_between(path: Path, below: Path | None) -> tuple[Path, ...]:
    if below is None or not path.is_relative_to(below):
        return ()
    return tuple(path.parents[: len(path.relative_to(below).parts) - 1])


def _read(path: Path, max_bytes: int, rule: _Rule) -> tuple[bytes, os.stat_result]:
    way = _checked_way(path, rule)
    descriptor = os.open(way.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        _check_file(way.real, found, rule)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise UntrustedFile(f"{path}: is larger than {max_bytes} bytes")
    return content, found


def _checked_way(path: Path, rule: _Rule) -> _Way:
    way = _way_to(path)
    for link in way.links:
        _check_owner(link, link.lstat(), rule)
    for folder in way.folders:
        _check_folder(path, folder, rule)
    return way


def _way_to(path: Path) -> _Way:
    """Follow a name as the kernel does, link by link. Raises UntrustedFile, or OSError where it
    leads to nothing."""
    named = path.absolute()
    at, links, rest = Path(named.anchor), list[Path](), list(reversed(named.parts[1:]))
    while rest:
        name = rest.pop()
        if name == "..":
            at = at.parent
            continue
        step = at / name
        if not stat.S_ISLNK(step.lstat().st_mode):
            at = step
            continue
        links.append(step)
        if len(links) > _MOST_LINKS:
            raise UntrustedFile(f"{path}: its links go round; expected a file")
        leads_to = step.readlink()
        if leads_to.is_absolute():
            at = Path(leads_to.anchor)
        rest += reversed(leads_to.parts[1:] if leads_to.is_absolute() else leads_to.parts)
    folders = dict.fromkeys((*(link.parent for link in links), at.parent))
    return _Way(at, tuple(links), tuple(folders))


def _check_file(path: Path, found: os.stat_result, rule: _Rule) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UntrustedFile(f"{path}: is not a regular file")
    _check_owner(path, found, rule)
    if found.st_mode & rule.must_not_write:
        raise UntrustedFile(
            f"{path}: mode {found.st_mode & 0o777:o} lets {rule.whom} write to it; expected a file"
            f" that only {rule.who} can change; run: {rule.mend} {path}"
        )


def _check_folder(path: Path, folder: Path, rule: _Rule) -> None:
    """Raises UntrustedFile where somebody else may put another file there."""
    found = folder.stat()
    if rule.is_ours and found.st_uid not in (0, os.geteuid()):
        raise UntrustedFile(
            f"{path}: the folder {folder} belongs to another user, who can put another file in its"
            " place; expected a folder of ours or root's"
        )
    if found.st_mode & rule.must_not_write and not found.st_mode & stat.S_ISVTX:
        raise UntrustedFile(
            f"{path}: the folder {folder} has mode {found.st_mode & 0o777:o}, so that {rule.whom}"
            f" can put another file in its place; expected one that only {rule.who} can change;"
            f" run: {rule.mend} {folder}"
        )


def _check_owner(path: Path, found: os.stat_result, rule: _Rule) -> None:
    if rule.is_ours and found.st_uid not in (0, os.geteuid()):
        raise UntrustedFile(f"{path}: belongs to another user; expected us or root")


def _owner_and_mode(entry: Path, *, is_followed: bool = False) -> tuple[int, int] | None:
    try:
        found = entry.stat(follow_symlinks=is_followed)
    except OSError:
        return None
    return found.st_uid, found.st_mode
