"""KvSettings: which KV server an installation asks for secrets. Pure."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KvSettings:
    """Where the KV server is, and how long its answers hold.

    `url` is scheme, host and port. A value is asked for again every `refresh_ms`, and gone when
    nothing confirmed it for `max_age_ms`. Mounts in `version_1_mounts` are KV version 1.
    """

    url: str
    token_file: Path
    ca_file: Path | None = None
    namespace: str | None = None
    version_1_mounts: frozenset[str] = frozenset()
    deadline_s: float = 5.0
    refresh_ms: int = 60_000
    max_age_ms: int = 300_000
