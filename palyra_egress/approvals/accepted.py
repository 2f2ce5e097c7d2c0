"""The policy last accepted, remembered across restarts: what a change is compared with.

`accepted-policy.json` (0600, in the proxy's state folder) holds the bytes of all its files, their
digest, the serial of its approvals and who gave them. It is replaced in one durable step before a
policy comes into force, so that no restart forgets a tightening. A file that is there and cannot be
read, or whose digest is not that of its bytes, is an error for the operator, never "no memory".
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from palyra_egress.errors import OperatorMustAct
from palyra_egress.policy.compile import files_digest
from palyra_egress.policy.load import MAX_FILES, MAX_TOTAL_BYTES
from palyra_fleet.private_files import read_private, replace
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.wire.models import DigestSha256, WireModel

FILE_NAME: Final = "accepted-policy.json"
_MAX_BYTES: Final = 2 * MAX_TOTAL_BYTES


class MemoryUnusable(OperatorMustAct):
    """What was remembered cannot be read or written; nothing new is put in force."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A policy that was accepted. `sources` are (name, bytes) in reading order, as digested."""

    serial: int
    sources: tuple[tuple[str, bytes], ...]
    approved_by: tuple[str, ...]

    @property
    def digest(self) -> str:
        return files_digest(self.sources)


class _StoredFile(WireModel):
    name: str
    content_base64: str


class _Stored(WireModel):
    version: Literal[1]
    serial: Annotated[int, Field(ge=0)]
    digest_sha256: DigestSha256
    approved_by: list[str]
    files: Annotated[list[_StoredFile], Field(min_length=1, max_length=MAX_FILES)]


def read_accepted(directory: Path) -> Accepted | None:
    """What is remembered; None if nothing ever was. Raises MemoryUnusable."""
    path = directory / FILE_NAME
    if not path.is_symlink() and not path.exists():
        return None
    try:
        stored = _Stored.model_validate_json(read_private(path, _MAX_BYTES))
        sources = tuple(
            (file.name, base64.b64decode(file.content_base64, validate=True))
            for file in stored.files
        )
    except KeyFileError as error:
        raise MemoryUnusable(str(error)) from error
    except (ValidationError, ValueError) as error:
        raise MemoryUnusable(f"{path}: is no memory of an accepted policy") from error
    accepted = Accepted(stored.serial, sources, tuple(stored.approved_by))
    if accepted.digest != stored.digest_sha256:
        raise MemoryUnusable(f"{path}: the digest is not that of the files in it")
    return accepted


def remember(directory: Path, accepted: Accepted) -> None:
    """Make this the policy last accepted, durably. Raises MemoryUnusable."""
    stored = _Stored(
        version=1,
        serial=accepted.serial,
        digest_sha256=accepted.digest,
        approved_by=list(accepted.approved_by),
        files=[
            _StoredFile(name=name, content_base64=base64.b64encode(source).decode())
            for name, source in accepted.sources
        ],
    )
    path = directory / FILE_NAME
    try:
        replace(path, stored.model_dump_json().encode())
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise MemoryUnusable(f"{path}: cannot be written: {what}") from error
