"""Where systems keep the certificate authorities that all their programs trust. One table.

Sources: update-ca-certificates(8) of Debian and Alpine, update-ca-trust(8) of Fedora and Red Hat,
and SUSE's update-ca-certificates(8), November 2026.
"""

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
