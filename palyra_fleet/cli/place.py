"""Where the command line finds the fleet: flags first, then environment, then PALYRA_HOME.

`PALYRA_HOME` (default `./var`) holds `run/admin.sock`, where operators of the fleet's own account
ask it, `operator.token`, and `admin.url`, which is for browsers: a port may be anybody's once the
fleet is gone, so nothing is sent there that `--url` does not send there.
"""

import os
import stat
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.cli.trouble import ExitCode, Trouble

HOME_VARIABLE: Final = "PALYRA_HOME"
URL_VARIABLE: Final = "PALYRA_FLEET_URL"
TOKEN_FILE_VARIABLE: Final = "PALYRA_FLEET_TOKEN_FILE"  # noqa: S105 (a variable's name)
_MOST_PATH_BYTES: Final = 107  # sun_path of unix(7), with its final zero
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Home:
    """The directory with the files that programs of one installation share."""

    directory: Path

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Home":
        return cls(Path(environment.get(HOME_VARIABLE) or "var"))

    @property
    def admin_url_file(self) -> Path:
        return self.directory / "admin.url"

    @property
    def token_file(self) -> Path:
        return self.directory / "operator.token"

    @property
    def socket_path(self) -> Path:
        return self.directory / "run" / "fleet.sock"

    @property
    def operators_socket(self) -> Path:
        return self.directory / "run" / "admin.sock"

    @property
    def fleet_state(self) -> Path:
        return self.directory / "fleet"


def find_fleet(
    url: str | None,
    token_file: Path | None,
    environment: Mapping[str, str] = os.environ,
    *,
    may_be_away: bool = False,
) -> tuple[Path | str, str]:
    """Where operators reach the fleet, and their token: where a flag or the environment says, else
    the operators' socket in PALYRA_HOME, in whose folder no other account can listen. Raises
    Trouble; for who waits for a fleet that `may_be_away` not because one has ended there."""
    where = url or environment.get(URL_VARIABLE) or _operators_socket(environment, may_be_away)
    return where, find_token(token_file, environment)


def _operators_socket(environment: Mapping[str, str], may_be_away: bool) -> Path:
    """The socket, if it is there and nobody else can listen in its place: who could would otherwise
    be given the token."""
    file = Home.of(environment).operators_socket
    try:
        named, home = file.parent.parent.lstat(), file.parent.parent.stat()
        folder = file.parent.lstat()
        found = None if may_be_away and not os.path.lexists(file) else file.lstat()
    except FileNotFoundError:
        why, remedy = f"{file} does not exist", "start it with `palyra-fleet serve`, pass --url, "
        remedy += "or set PALYRA_HOME"
        code = ExitCode.UNREACHABLE if file.parent.exists() else ExitCode.YOURS
        raise Trouble(code, "the fleet is not served here", why, remedy) from None
    except OSError as error:
        why = f"{file} cannot be looked at ({error.strerror}); it is its account's alone"
        remedy = "be that account, or pass --url, which sends the token to whoever listens there"
        raise Trouble(ExitCode.YOURS, "the fleet cannot be asked", why, remedy) from None
    if len(os.fsencode(file)) > _MOST_PATH_BYTES:
        why = f"{file} is longer than the {_MOST_PATH_BYTES} bytes that a socket's path may have"
        remedy = "set PALYRA_HOME to a shorter path that leads there, such as a link to it"
        raise Trouble(ExitCode.YOURS, "the fleet cannot be asked", why, remedy)
    owners = {0, os.geteuid()}
    if os.geteuid() == 0 and environment.get(HOME_VARIABLE):  # root means whose home it names
        owners.add(home.st_uid)
    fault = _fault_of(file, (named, home, folder, found), owners)
    if fault is not None:
        remedy = "look where this folder comes from, and `chmod 700` it if only its mode is wrong; "
        remedy += "PALYRA_HOME is ./var where it is not set"
        raise Trouble(ExitCode.YOURS, "the operator token is not sent there", fault, remedy)
    return file


def _fault_of(
    file: Path,
    way: tuple[os.stat_result, os.stat_result, os.stat_result, os.stat_result | None],
    owners: Container[int],
) -> str | None:
    """Why somebody else than the owners may listen at the socket, and what is expected. `way`: the
    home's name, which may be a link, the home, the folder in it, the socket if it is there."""
    named, home, folder, found = way
    at_home = file.parent.parent
    looked_at = ((at_home, named), (at_home, home), (file.parent, folder), (file, found))
    for path, status in looked_at:
        if status is not None and status.st_uid not in owners:
            return f"another account may listen at {file}: {path} is user {status.st_uid}'s"
    is_socket = found is None or stat.S_ISSOCK(found.st_mode)
    if not stat.S_ISDIR(folder.st_mode) or not is_socket:
        return f"{file} is not a socket in a folder of its own, as `serve` makes it"
    for path, status in ((at_home, home), (file.parent, folder)):
        is_sticky = status is home and status.st_mode & stat.S_ISVTX
        if status.st_mode & _OTHERS_WRITE and not is_sticky:
            said = f"mode of {path} is {stat.S_IMODE(status.st_mode):o}, expected 700"
            return f"another account may listen at {file}: {said}"
    return None


def find_token(flag: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The operator's token, out of its file."""
    named = environment.get(TOKEN_FILE_VARIABLE)
    given = flag or (Path(named) if named else None)
    file = given or Home.of(environment).token_file
    try:
        text = (_text_of if given else _text_in_home)(file).strip()
    except FileNotFoundError:
        why = f"{file} does not exist"
    except (OSError, UnicodeDecodeError):
        why = f"{file} cannot be read"
    except _NotItsAccounts:
        why = f"{file} is not a file of the account that its folder belongs to"
    else:
        if text:
            return text
        why = f"{file} is empty"
    remedy = "pass --token-file, or set PALYRA_HOME"
    raise Trouble(ExitCode.YOURS, "there is no operator token", why, remedy)


class _NotItsAccounts(Exception):
    """A token in the home of another account is none of its own."""


def _text_of(file: Path) -> str:
    return file.read_text(encoding="ascii")


def _text_in_home(file: Path) -> str:
    """In the home of another account only a file of its own is read, and no link: root, who asks
    for that account, may read what it may not, and the answer to a link would be sent to it."""
    home = file.parent.stat()
    if home.st_uid in {0, os.geteuid()}:
        return _text_of(file)
    if stat.S_ISLNK(file.lstat().st_mode):
        raise _NotItsAccounts
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, encoding="ascii") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != home.st_uid:
            raise _NotItsAccounts
        return opened.read()
