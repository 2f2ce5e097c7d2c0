"""ArtifactTransport: which files go into a run and which may come out, each named with its digest.

Decides from words alone. What a worker asks for must be well formed and within the bounds below;
what it reports at the end must be what its lease names: every input with the digest that was asked
for, and of outputs only those that were announced, once each, within the agreed bytes. An output
that is not there is not reported, which is no fault. Paths are relative, of plain segments, `/`
between them. Sizes in bytes. Pure.
"""

import re
from dataclasses import dataclass
from typing import Final

from palyra_fleet.wire.artifacts import ARTIFACT_PATH_PATTERN, MAX_ARTIFACTS, MAX_TRANSPORT_BYTES

_PATH: Final = re.compile(ARTIFACT_PATH_PATTERN)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that was carried."""

    path: str
    digest_sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArtifactTransport:
    """What a lease allows to be carried. The default carries nothing."""

    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[str, ...] = ()
    max_output_bytes: int = 0

    def problem(self) -> str | None:
        """What is wrong with it as a request, or None."""
        paths = tuple(artifact.path for artifact in self.inputs)
        for kind, named in (("inputs", paths), ("outputs", self.outputs)):
            if len(named) > MAX_ARTIFACTS:
                return f"artifact_transport {kind} are at most {MAX_ARTIFACTS}"
            if any(_PATH.fullmatch(path) is None for path in named):
                return f"artifact_transport {kind} must be relative paths of plain segments"
            if _overlap(named):
                return f"artifact_transport {kind} must be different files"
        if any(_DIGEST.fullmatch(one.digest_sha256) is None for one in self.inputs):
            return "artifact_transport inputs must carry a SHA-256 digest each"
        if any(one.size_bytes < 0 for one in self.inputs):
            return "artifact_transport inputs have a size each"
        if sum(one.size_bytes for one in self.inputs) > MAX_TRANSPORT_BYTES:
            return f"artifact_transport inputs are at most {MAX_TRANSPORT_BYTES} bytes together"
        if not 0 <= self.max_output_bytes <= MAX_TRANSPORT_BYTES:
            return f"artifact_transport max_output_bytes is at most {MAX_TRANSPORT_BYTES}"
        return None

    def difference(self, carried: "CarriedArtifacts") -> str | None:
        """What in a report is not what the lease allowed, or None."""
        if sorted(carried.inputs, key=_path_of) != sorted(self.inputs, key=_path_of):
            return "the inputs that were used are not those of the lease"
        named = tuple(artifact.path for artifact in carried.outputs)
        if not set(named) <= set(self.outputs):
            return "an output came out that the lease does not name"
        if len(set(named)) != len(named):
            return "an output is reported twice"
        if any(_DIGEST.fullmatch(one.digest_sha256) is None for one in carried.outputs):
            return "an output is reported without a digest"
        if any(one.size_bytes < 0 for one in carried.outputs):
            return "an output is reported with no size"
        if sum(one.size_bytes for one in carried.outputs) > self.max_output_bytes:
            return "the outputs are larger than the lease allows"
        return None


@dataclass(frozen=True, slots=True)
class CarriedArtifacts:
    """What a clean-up report says was used and came out."""

    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()


NOTHING_TO_CARRY: Final = ArtifactTransport()
NOTHING_CARRIED: Final = CarriedArtifacts()


def checksums(artifacts: tuple[Artifact, ...]) -> str:
    """As `sha256sum` prints and reads them, in the order of their paths: for the event log."""
    ordered = sorted(artifacts, key=_path_of)
    return "\n".join(f"{artifact.digest_sha256}  {artifact.path}" for artifact in ordered)


def _path_of(artifact: Artifact) -> str:
    return artifact.path


def _overlap(paths: tuple[str, ...]) -> bool:
    """Whether one stands twice, or is a directory of another."""
    known = set(paths)
    if len(known) != len(paths):
        return True
    return any(
        "/".join(segments[:length]) in known
        for path in paths
        for segments in (path.split("/"),)
        for length in range(1, len(segments))
    )
