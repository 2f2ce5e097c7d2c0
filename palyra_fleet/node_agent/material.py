"""What a paired node keeps: who it is, its keys, its certificate, and where the fleet is. Sealed.

`NodeMaterial` is one record in one file, sealed under a master key of this node (a 0600 file beside
it, or PALYRA_MASTER_KEY). A rotation has two phases: the new certificate is stored beside the old
one before it is first used, and takes its place once the fleet has answered to it, so a crash in
between leaves at least one that works. Times: Unix ms.
"""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from palyra_fleet.private_files import read_private
from palyra_fleet.private_files import replace as replace_file
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.wire.sealing import MasterKey, SealBroken, create_key_file, find_master_key

RECORD_NAME: Final = "node-agent/material"
SCHEMA_VERSION: Final = 1
_MAX_FILE_BYTES: Final = 1 << 20


class NotPaired(Exception):
    """This directory holds no pairing; the person who runs it must pair first."""


class MaterialUnusable(Exception):
    """The stored pairing does not open or is not one; the text says which file and what to do."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate and its key, PEM both."""

    certificate_pem: str
    private_key_pem: str = field(repr=False)
    expires_at_unix_ms: int

    @property
    def issued_at_unix_ms(self) -> int:
        """Its not-before."""
        return int(self._leaf.not_valid_before_utc.timestamp() * 1000)

    @property
    def fingerprint(self) -> str:
        """Lower-case hex SHA-256 of the leaf's DER, as the fleet names it."""
        return self._leaf.fingerprint(SHA256()).hex()

    @property
    def _leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate_pem.encode())


@dataclass(frozen=True, slots=True)
class NodeMaterial:
    """Everything a paired node needs. `next_certificate` was issued and not used yet."""

    device_id: str
    client_kind: str
    node_address: str
    enrolment_address: str
    trusted_roots_pem: str = field(repr=False)
    signing_seed_hex: str = field(repr=False)
    certificate: Certificate
    next_certificate: Certificate | None = None

    @property
    def newest(self) -> Certificate:
        """The certificate to try first."""
        return self.next_certificate or self.certificate

    def with_next(self, certificate: Certificate, roots_pem: str) -> Self:
        """The first phase of a rotation."""
        return replace(
            self,
            next_certificate=certificate,
            trusted_roots_pem=roots_pem or self.trusted_roots_pem,
        )

    def without_next(self) -> Self:
        """The fleet knows nothing of the new certificate: go on with the one in use."""
        return replace(self, next_certificate=None)

    def settled(self) -> Self:
        """The second phase: the fleet has answered to the new certificate."""
        return replace(self, certificate=self.newest, next_certificate=None)


@dataclass(frozen=True, slots=True)
class AgentHome:
    """The directory of one node agent."""

    directory: Path

    @property
    def material_file(self) -> Path:
        return self.directory / "material.sealed"

    @property
    def key_file(self) -> Path:
        return self.directory / "master.key"

    @property
    def lock_file(self) -> Path:
        return self.directory / "agent.lock"

    @property
    def asked_file(self) -> Path:
        """Touched whenever the fleet is asked whether it wants another certificate."""
        return self.directory / "asked"

    @property
    def status_file(self) -> Path:
        return self.directory / "status.json"

    @property
    def is_paired(self) -> bool:
        return self.material_file.exists()

    def load(self) -> NodeMaterial:
        """Raises NotPaired or MaterialUnusable."""
        if not self.is_paired:
            raise NotPaired(f"{self.directory} holds no pairing")
        try:
            key = find_master_key(self.key_file, os.environ)
            opened = key.open(RECORD_NAME, read_private(self.material_file, _MAX_FILE_BYTES))
            return _read(json.loads(opened))
        except (KeyFileError, SealBroken) as error:
            raise MaterialUnusable(f"{self.material_file}: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise MaterialUnusable(f"{self.material_file}: not a stored pairing") from error

    def save(self, material: NodeMaterial) -> None:
        """Durable when this returns; the file is the old one or the new one, never between."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(material)})
        replace_file(self.material_file, self._key().seal(RECORD_NAME, content.encode()))

    def forget(self) -> None:
        """Remove everything; the master key last, when nothing is left that it opens."""
        for file in (self.material_file, self.status_file, self.asked_file, self.key_file):
            file.unlink(missing_ok=True)

    def _key(self) -> MasterKey:
        if not self.key_file.exists() and "PALYRA_MASTER_KEY" not in os.environ:
            return create_key_file(self.key_file)
        return find_master_key(self.key_file, os.environ)


def _read(stored: dict[str, object]) -> NodeMaterial:
    if stored.pop("schema_version") != SCHEMA_VERSION:
        raise ValueError("another version")
    certificate, following = stored.pop("certificate"), stored.pop("next_certificate")
    if not isinstance(certificate, dict):
        raise TypeError("no certificate")
    material = NodeMaterial(**stored, certificate=Certificate(**certificate))  # type: ignore[arg-type]
    if isinstance(following, dict):
        return replace(material, next_certificate=Certificate(**following))
    return material
