"""Where one installation keeps its things, and the note by which `run` finds a running proxy.

Everything lies under `PALYRA_HOME` (default `./var`), 0700. `egress.json` says where the proxy and
the fleet of this installation listen and which files a worker needs; it holds no secret.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from palyra_fleet.cli.place import Home


def written(address: tuple[str, int]) -> str:
    """A listener's address as URLs have it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class EgressNote:
    """What a program that runs workers needs to know. Paths are absolute. Secrets lie in
    `secret_directories`, which isolated workers do not see. `socks` is empty where SOCKS is not
    spoken."""

    proxy: str
    fleet_socket: str
    launcher_key: str
    ca_file: str
    bundle_file: str
    policy_file: str
    audit_file: str
    secret_directories: tuple[str, ...] = ()
    socks: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises OSError, or ValueError when the note is not one."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except TypeError as error:
            raise ValueError(f"{path}: not a note of a running proxy") from error

    def write(self, path: Path) -> None:
        """Replace the note in one step."""
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Installation:
    """The paths of one installation."""

    home: Home

    @classmethod
    def of_environment(cls) -> Self:
        return cls(Home.of())

    @property
    def directory(self) -> Path:
        return self.home.directory

    def create(self) -> None:
        """Make the home directory, for its owner only."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)

    @property
    def egress_state(self) -> Path:
        return self.directory / "egress"

    @property
    def launcher_key(self) -> Path:
        return self.directory / "launcher" / "launcher.key"

    @property
    def note(self) -> Path:
        return self.directory / "egress.json"
