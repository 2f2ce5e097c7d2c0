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
    url: str | None, token_file: Path | None, environment: Mapping[str, str] = os.environ
) -> tuple[Path | str, str]:
    """Where operators reach the fleet, and their token: where a flag or the environment says, else
    the operators' socket in PALYRA_HOME, in whose folder no other account can listen."""
    where = url or environment.get(URL_VARIABLE) or _operators_socket(environment)
    return where, find_token(token_file, environment)


def _operators_socket(environment: Mapping[str, str]) -> Path:
    """The socket, if it is there and nobody else can listen in its place: who could would otherwise
    be given the token."""
    file = Home.of(environment).operators_socket
    try:
        home, folder, found = file.parent.parent.stat(), file.parent.lstat(), file.lstat()
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
    if environment.get(HOME_VARIABLE):  # who names a home means the account that it belongs to
        owners.add(home.st_uid)
    fault = _fault_of(file, home, folder, found, owners)
    if fault is not None:
        remedy = "look where this folder comes from; PALYRA_HOME is ./var where it is not set"
        raise Trouble(ExitCode.YOURS, "the operator token is not sent there", fault, remedy)
    return file


def _fault_of(
    file: Path,
    home: os.stat_result,
    folder: os.stat_result,
    found: os.stat_result,
    owners: Container[int],
) -> str | None:
    """Why somebody else than the owners may listen at the socket, and what is expected."""
    looked_at = ((file.parent.parent, home), (file.parent, folder), (file, found))
    for path, status in looked_at:
        if status.st_uid not in owners:
            return f"another account may listen at {file}: {path} is user {status.st_uid}'s"
    if not stat.S_ISDIR(folder.st_mode) or not stat.S_ISSOCK(found.st_mode):
        return f"{file} is not a socket in a folder of its own, as `serve` makes it"
    for path, status in looked_at[:2]:
        is_sticky = status is home and status.st_mode & stat.S_ISVTX
        if status.st_mode & _OTHERS_WRITE and not is_sticky:
            said = f"mode of {path} is {stat.S_IMODE(status.st_mode):o}, expected 700"
            return f"another account may listen at {file}: {said}"
    return None


def find_token(flag: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The operator's token, out of its file."""
    named = environment.get(TOKEN_FILE_VARIABLE)
    file = flag or (Path(named) if named else Home.of(environment).token_file)
    return _read(file, "there is no operator token", "pass --token-file, or set PALYRA_HOME")


def _read(file: Path, what: str, remedy: str) -> str:
    try:
        text = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise Trouble(ExitCode.YOURS, what, f"{file} does not exist", remedy) from None
    except (OSError, UnicodeDecodeError):
        raise Trouble(ExitCode.YOURS, what, f"{file} cannot be read", remedy) from None
    if not text:
        raise Trouble(ExitCode.YOURS, what, f"{file} is empty", remedy)
    return text
