"""The options `--carry-in`, `--carry-out`, `--carry-to`: what of a run is carried in and out.

For the commands that run a program as a worker; both packages have one. A path in the run may be
named before an equals sign, `data/rows.csv=FILE`; without it the file's own name is taken.
"""

import argparse
import hashlib
import re
from pathlib import Path
from typing import Final

from palyra_fleet.wire.artifacts import ARTIFACT_PATH_PATTERN, MAX_TRANSPORT_BYTES
from palyra_fleet.wire.models import ArtifactModel, ArtifactTransportModel
from palyra_fleet.worker.artifacts import ArtifactRefused, Carriage

_PATH: Final = re.compile(ARTIFACT_PATH_PATTERN)


def add_artifact_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the three options."""
    add_carried(verb)
    verb.add_argument(
        "--carry-to",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where outputs are put (default: here)",
    )


def add_carried(verb: argparse.ArgumentParser) -> None:
    """Add the two that say what is carried."""
    verb.add_argument(
        "--carry-in",
        type=_input,
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="put this file into $PALYRA_INPUTS; the lease names its digest (may be repeated)",
    )
    verb.add_argument(
        "--carry-out",
        type=_path,
        action="append",
        default=[],
        metavar="NAME",
        help="carry this file out of $PALYRA_OUTPUTS when the program ends (may be repeated)",
    )


def carriage_of(arguments: argparse.Namespace) -> Carriage:
    """What was asked for. `--carry-to` is taken as it is meant now, whoever changes directory."""
    return Carriage(
        tuple(arguments.carry_in), tuple(arguments.carry_out), arguments.carry_to.resolve()
    )


def transport_of(arguments: argparse.Namespace) -> ArtifactTransportModel:
    """The same as a lease names it, by the digests of the files as they are here. Raises
    ArtifactRefused."""
    outputs = tuple(arguments.carry_out)
    return ArtifactTransportModel(
        inputs=tuple(_measured(path, source) for path, source in arguments.carry_in),
        outputs=outputs,
        max_output_bytes=MAX_TRANSPORT_BYTES if outputs else 0,
    )


def _measured(path: str, source: Path) -> ArtifactModel:
    try:
        with source.open("rb") as file:
            digest_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
    except OSError as error:
        raise ArtifactRefused(f"{source}: cannot be read: {error.strerror}") from error
    if size_bytes > MAX_TRANSPORT_BYTES:
        raise ArtifactRefused(f"{source}: is larger than {MAX_TRANSPORT_BYTES} bytes")
    return ArtifactModel(path=path, digest_sha256=digest_sha256, size_bytes=size_bytes)


def _input(text: str) -> tuple[str, Path]:
    name, named, file = text.partition("=")
    source = Path(file if named else text)
    return _path(name if named else source.name), source


def _path(text: str) -> str:
    if _PATH.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a relative path of plain names (letters, digits, . _ + -), none "
            "of which begins with a dot"
        )
    return text
