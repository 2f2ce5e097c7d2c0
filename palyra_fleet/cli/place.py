"""Where the command line finds the fleet: flags first, then environment, then PALYRA_HOME.

`PALYRA_HOME` (default `./var`) holds `admin.url` and `operator.token`, as `serve` writes them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.cli.trouble import ExitCode, Trouble

HOME_VARIABLE: Final = "PALYRA_HOME"
URL_VARIABLE: Final = "PALYRA_FLEET_URL"
TOKEN_FILE_VARIABLE: Final = "PALYRA_FLEET_TOKEN_FILE"  # noqa: S105 (a variable's name)

_LOOPBACK_URL: Final = re.compile(r"http://(127(\.[0-9]{1,3}){3}|\[::1\]):[0-9]{1,5}")
"""What `serve` writes. A folder that came from elsewhere may hold a file of the same name."""


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
    def fleet_state(self) -> Path:
        return self.directory / "fleet"


def find_url(flag: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The admin listener's URL."""
    given = flag or environment.get(URL_VARIABLE)
    if given:
        return given
    file = Home.of(environment).admin_url_file
    url = _read(
        file,
        "the address of the fleet is not known",
        "start it with `palyra-fleet serve`, pass --url, or set PALYRA_HOME",
    )
    if _LOOPBACK_URL.fullmatch(url) is None:
        why = f"{file} does not name a listener of this machine, as `serve` writes it"
        remedy = "look where this file comes from; PALYRA_HOME is ./var where it is not set"
        raise Trouble(ExitCode.YOURS, "the operator token is not sent there", why, remedy)
    return url


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
