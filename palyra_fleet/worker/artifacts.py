"""Carries files into and out of a run's workspace, each with its SHA-256 digest.

Inputs are copied to `in/` before the lease is asked for, which names them with the digests of what
was copied; `used` digests them again right before the program starts, and what it finds is what the
report says. Outputs are what the program left under the announced names in `out/`. Whatever the
program put there is met with suspicion: one component after the other, no link followed, nothing
that is mounted, hard-linked or no regular file, no more bytes than agreed. An output gets its name
outside only when all of it is written, and nothing outside is written through a link either.
Blocks. Sizes in bytes.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from palyra_fleet.wire.artifacts import MAX_TRANSPORT_BYTES
from palyra_fleet.wire.models import ArtifactModel, ArtifactTransportModel
from palyra_fleet.worker.workspace_removal import mount_of

INPUTS, OUTPUTS = "in", "out"
_CHUNK_BYTES: Final = 1024 * 1024
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ArtifactRefused(Exception):
    """A file that cannot be carried; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Carriage:
    """What a run is to be given and to leave. `inputs` are pairs of the path in the run and the
    file here; outputs come to `destination`, which must be there."""

    inputs: tuple[tuple[str, Path], ...] = ()
    outputs: tuple[str, ...] = ()
    destination: Path = Path()
    max_output_bytes: int = MAX_TRANSPORT_BYTES


@dataclass(slots=True)
class Carrier:
    """Of one run. `destination_fd` is held from before the program starts (-1: no outputs)."""

    carriage: Carriage
    workspace_fd: int
    inputs: tuple[ArtifactModel, ...]
    destination_fd: int = -1
    refused: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, carriage: Carriage, workspace_fd: int) -> Self:
        """Copy the inputs in. Raises ArtifactRefused."""
        for name in (INPUTS, OUTPUTS):
            with _refusing(name):
                os.mkdir(name, 0o700, dir_fd=workspace_fd)
        left, inputs = MAX_TRANSPORT_BYTES, []
        for path, source in carriage.inputs:
            with _refusing(str(source)):
                read_fd = os.open(source, _READ & ~os.O_NOFOLLOW)
                try:
                    artifact = _carry(read_fd, workspace_fd, INPUTS, path, left, mode=0o400)
                finally:
                    os.close(read_fd)
            left -= artifact.size_bytes
            inputs.append(artifact)
        destination_fd = -1
        if carriage.outputs:
            with _refusing(str(carriage.destination)):
                destination_fd = os.open(carriage.destination, _DIRECTORY & ~os.O_NOFOLLOW)
        return cls(carriage, workspace_fd, tuple(inputs), destination_fd)

    def transport(self) -> ArtifactTransportModel:
        """What to ask a lease for."""
        outputs = self.carriage.outputs
        most = self.carriage.max_output_bytes if outputs else 0
        return ArtifactTransportModel(inputs=self.inputs, outputs=outputs, max_output_bytes=most)

    def used(self) -> tuple[ArtifactModel, ...]:
        """The inputs as they are now, to compare with what the lease names. Raises
        ArtifactRefused if one of them cannot be read or is another."""
        found = []
        for artifact in self.inputs:
            with _refusing(artifact.path), _opened(self.workspace_fd, INPUTS, artifact.path) as at:
                found.append(_digest(at, artifact.path, artifact.size_bytes))
            if found[-1] != artifact:
                raise ArtifactRefused(f"input {artifact.path} is not what the lease names")
        return tuple(found)

    def collect(self) -> tuple[ArtifactModel, ...]:
        """Carry out what is there of the outputs. What is not carried is told in `refused`."""
        left, outputs = self.carriage.max_output_bytes, []
        for path in self.carriage.outputs:
            try:
                with _refusing(path), _opened(self.workspace_fd, OUTPUTS, path) as at:
                    artifact = _carry(at, self.destination_fd, ".", path, left, mode=0o600)
            except ArtifactRefused as refusal:
                self.refused.append(str(refusal))
                continue
            left -= artifact.size_bytes
            outputs.append(artifact)
        return tuple(outputs)

    def close(self) -> None:
        held, self.destination_fd = self.destination_fd, -1
        if held >= 0:
            os.close(held)


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise ArtifactRefused(f"{what} is not carried: {why}") from error


@contextlib.contextmanager
def _directory(top_fd: int, first: str, path: str, *, make: bool) -> Iterator[int]:
    """The directory that `path` is in, below `first` of `top_fd`. Raises OSError."""
    at = os.open(first, _DIRECTORY, dir_fd=top_fd)
    try:
        for segment in path.split("/")[:-1]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(segment, 0o700, dir_fd=at)
            below = os.open(segment, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


@contextlib.contextmanager
def _opened(top_fd: int, first: str, path: str) -> Iterator[int]:
    """A file of the workspace, open for reading. Raises OSError, ArtifactRefused."""
    with _directory(top_fd, first, path, make=False) as at:
        read_fd = os.open(path.rpartition("/")[2], _READ, dir_fd=at)
    try:
        if os.fstat(read_fd).st_nlink != 1:
            raise ArtifactRefused(f"{path} is not carried: it has other names")
        if mount_of(read_fd) != mount_of(top_fd):
            raise ArtifactRefused(f"{path} is not carried: another file system is mounted there")
        yield read_fd
    finally:
        os.close(read_fd)


def _carry(
    read_fd: int, top_fd: int, first: str, path: str, most_bytes: int, *, mode: int
) -> ArtifactModel:
    """Copy an open file to `path`, where it appears whole. Raises OSError, ArtifactRefused."""
    name, draft = path.rpartition("/")[2], f".palyra-{secrets.token_hex(8)}"
    with _directory(top_fd, first, path, make=True) as at:
        write_fd = os.open(draft, _WRITE, mode, dir_fd=at)
        try:
            artifact = _digest(read_fd, path, most_bytes, write_fd)
            os.fsync(write_fd)
            os.rename(draft, name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=at)
            raise
        finally:
            os.close(write_fd)
    return artifact


def _digest(read_fd: int, path: str, most_bytes: int, write_fd: int | None = None) -> ArtifactModel:
    """Digest an open file, and copy it on the way. Raises OSError, ArtifactRefused."""
    if not stat.S_ISREG(os.fstat(read_fd).st_mode):
        raise ArtifactRefused(f"{path} is not carried: it is no regular file")
    digest, size = hashlib.sha256(), 0
    while data := os.read(read_fd, _CHUNK_BYTES):
        size += len(data)
        if size > most_bytes:
            raise ArtifactRefused(f"{path} is not carried: it is larger than may be carried")
        digest.update(data)
        while write_fd is not None and data:
            data = data[os.write(write_fd, data) :]
    return ArtifactModel(path=path, digest_sha256=digest.hexdigest(), size_bytes=size)
