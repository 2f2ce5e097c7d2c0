"""The launcher: measures what it is about to run and says so, signed, over the fleet's nonce.

Three digests, SHA-256 in lower-case hex: the *artifact* is the bytes of the resolved executable
file; the *image* is a canonical description of the running system (os-release, kernel, machine,
interpreter); the *build* is every Python file of the installed palyra packages. A canonical
description is the concatenation of length-prefixed parts, so no two lists of parts collide.
`artifact_is_unchanged` is asked again right before the start, and `measure_again` whenever a
session that goes on attests anew. The launcher believes its own disk:
against a root user on the same machine this proves nothing (see the threat model).
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from palyra_fleet.wire.backing import Backing, EvidenceKind
from palyra_fleet.wire.dsse import ATTESTATION_TYPE, DsseEnvelope, seal
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import AttestationPayload

SDK_PROTOCOL_VERSION: Final = 1
WIT_ABI_VERSION: Final = "palyra-worker-abi/v1"
EVIDENCE_LIFETIME_MS: Final = 3_600_000
_OS_RELEASE: Final = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
_PACKAGES: Final = ("palyra_egress", "palyra_fleet")


class ArtifactNotFound(Exception):
    """The command names no executable file; the person who typed it must act."""


class ArtifactChanged(Exception):
    """The program's file is not the one that was measured; the text says which."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An executable as found on the path, the file behind it, and that file's digest."""

    invoked_as: str
    executable: Path
    digest_sha256: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """What runs: program, system, and our own code."""

    artifact: Artifact
    image_digest_sha256: str
    build_digest_sha256: str


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Which worker this is: its id, and the name the launcher vouches for for ever."""

    worker_id: str
    evidence_identity: str
    capabilities: tuple[str, ...] = ()
    capability_authority_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What is to be said about a worker with this key, over this nonce."""

    identity: WorkerIdentity
    measured: Measurement
    nonce: str
    key: SigningKey
    egress_enforced: bool
    now_unix_ms: int

    def payload(self, kind: EvidenceKind, evidence_identity: str, lifetime_ms: int) -> bytes:
        """The bytes to sign as ATTESTATION_TYPE."""
        said = AttestationPayload(
            worker_id=self.identity.worker_id,
            image_digest_sha256=self.measured.image_digest_sha256,
            build_digest_sha256=self.measured.build_digest_sha256,
            artifact_digest_sha256=self.measured.artifact.digest_sha256,
            egress_proxy_attested=True,
            supported_capabilities=self.identity.capabilities,
            capability_authority_sha256=self.identity.capability_authority_sha256,
            sdk_protocol_version=SDK_PROTOCOL_VERSION,
            wit_abi_version=WIT_ABI_VERSION,
            issued_at_unix_ms=self.now_unix_ms,
            expires_at_unix_ms=self.now_unix_ms + lifetime_ms,
            nonce=self.nonce,
            key_sha256=self.key.thumbprint,
            evidence_kind=kind,
            evidence_identity=evidence_identity,
            egress_enforced=self.egress_enforced,
        )
        return said.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Signed evidence, and what stands behind it where no launcher's key does alone."""

    envelope: DsseEnvelope
    backing: Backing | None = None


class EvidenceSource(Protocol):
    """Vouches for workers of this machine. Asked again for each later proof of a session."""

    def attest(self, statement: Statement) -> Evidence:
        """Raises EvidenceUnavailable. Blocks."""


class EvidenceUnavailable(Exception):
    """What vouches for the worker cannot be read or used; the text says what to mend."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Signs evidence with an enrolled key."""

    key: SigningKey
    lifetime_ms: int = field(default=EVIDENCE_LIFETIME_MS)

    def attest(self, statement: Statement) -> Evidence:
        return Evidence(self.signed(statement, "launcher"))

    def signed(self, statement: Statement, kind: EvidenceKind) -> DsseEnvelope:
        """The statement: this worker, with this key, runs what was measured."""
        identity = statement.identity.evidence_identity
        payload = statement.payload(kind, identity, self.lifetime_ms)
        return seal(self.key, ATTESTATION_TYPE, payload)


def measure(command: str, search_path: str | None = None) -> Measurement:
    """Measure `command` (a name on the path, or a path) and what it will run on."""
    return Measurement(measure_artifact(command, search_path), image_digest(), build_digest())


def measure_artifact(command: str, search_path: str | None = None) -> Artifact:
    """Find the executable behind `command` and digest it. Raises ArtifactNotFound."""
    found = shutil.which(command, path=search_path)
    if found is None:
        raise ArtifactNotFound(f"{command!r} is not an executable file on the search path")
    invoked_as = os.path.abspath(found)  # noqa: PTH100 (Path.resolve would follow the link)
    executable = Path(invoked_as).resolve()
    try:
        return Artifact(invoked_as, executable, file_digest(executable))
    except OSError as error:
        raise ArtifactNotFound(f"{executable}: cannot be read: {error.strerror}") from error


def artifact_is_unchanged(artifact: Artifact) -> bool:
    """True only if the file still has the measured digest; an unreadable file has not."""
    try:
        return file_digest(artifact.executable) == artifact.digest_sha256
    except OSError:
        return False


def measure_again(before: Measurement) -> Measurement:
    """Measure the same program anew, and what is around it. Raises ArtifactChanged."""
    if not artifact_is_unchanged(before.artifact):
        raise ArtifactChanged(f"{before.artifact.executable} changed after it was measured")
    return Measurement(before.artifact, image_digest(), build_digest())


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_digest() -> str:
    """The running system: os-release bytes, kernel release, machine, interpreter."""
    os_release = next((path.read_bytes() for path in _OS_RELEASE if path.is_file()), b"")
    return canonical_digest(
        (
            b"palyra-image-v1",
            os_release,
            platform.release().encode(),
            platform.machine().encode(),
            sys.implementation.name.encode(),
            platform.python_version().encode(),
        )
    )


def build_digest() -> str:
    """Every Python file of the palyra packages that are installed beside this one."""
    parts = [b"palyra-build-v1"]
    for package in _PACKAGES:
        root = _package_root(package)
        if root is None:
            continue
        for path in sorted(root.rglob("*.py")):
            parts.append(f"{package}/{path.relative_to(root).as_posix()}".encode())
            parts.append(bytes.fromhex(file_digest(path)))
    return canonical_digest(parts)


def canonical_digest(parts: Iterable[bytes]) -> str:
    """SHA-256 over the parts, each behind its length in eight bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _package_root(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent
