"""How artifacts of a run are named, and how many and how large they may be.

A path is relative, of at most eight plain segments, none hidden, so that `.` and `..` cannot be
written. Sizes in bytes.
"""

from typing import Annotated, Final

from pydantic import StringConstraints

MAX_ARTIFACTS: Final = 32
MAX_TRANSPORT_BYTES: Final = 2**30
_SEGMENT: Final = "[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}"
ARTIFACT_PATH_PATTERN: Final = f"{_SEGMENT}(/{_SEGMENT}){{0,7}}"
ArtifactPath = Annotated[
    str, StringConstraints(pattern=f"^{ARTIFACT_PATH_PATTERN}$", max_length=255)
]
