"""What servers are verified against where no rule says anything: one pinned bundle, made at start.

It is the public roots and, with `--extra-roots`, an installation's own: certificates and nothing
else of that file, which only we and root may be able to change. The bundle lies among our own files
and is written in one step; whatever had its name before, a link too, is replaced and not followed.
"""

from pathlib import Path
from typing import Final

import certifi
from OpenSSL import crypto

from palyra_egress.errors import OperatorMustAct
from palyra_egress.proxy.tls.tls_material import (
    MAX_PEM_BYTES,
    MaterialDamaged,
    MaterialGone,
    read_bundle,
)
from palyra_fleet.private_files import replace

BUNDLE_NAME: Final = "upstream-roots.pem"


class ExtraRootsRefused(OperatorMustAct):
    """The file of `--extra-roots` cannot be used; says where, and what was expected."""


def read_extra_roots(path: Path | None) -> bytes:
    """The certificates of that file, PEM; nothing without a file. Raises ExtraRootsRefused."""
    if path is None:
        return b""
    try:
        found = read_bundle(path, MAX_PEM_BYTES)
    except (MaterialGone, MaterialDamaged) as error:
        raise ExtraRootsRefused(f"--extra-roots: {error}") from None
    return b"".join(crypto.dump_certificate(crypto.FILETYPE_PEM, one) for one in found)


def write_bundle(directory: Path, extra_roots: bytes) -> Path:
    """Write the bundle, and say where."""
    path = directory / BUNDLE_NAME
    replace(path, Path(certifi.where()).read_bytes() + b"\n" + extra_roots)
    return path
