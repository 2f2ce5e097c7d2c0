"""What a proxy is told of who may speak: the lines of its stream. Times: Unix ms.

The models are strict as those of `models`; a line that is not one of these ends the stream, and a
proxy without a fresh view denies.
"""

from typing import Literal

from palyra_fleet.wire.models import DigestSha256, Name, Ulid, UnixMs, WireModel


class AttestedFacts(WireModel):
    """What the fleet verified about a worker when it last proved itself. Whatever is absent is not
    known, and a proxy takes it for not being so."""

    image_digest_sha256: DigestSha256 | None = None
    build_digest_sha256: DigestSha256 | None = None
    artifact_digest_sha256: DigestSha256 | None = None
    capabilities: tuple[Name, ...] = ()
    binding_level: Literal["none", "claimed", "observed", "enforced"] = "none"


class Binding(WireModel):
    """Who may speak through a proxy: one live lease. The secret is known as its SHA-256 only.
    The same lease is bound again, with the same fence, when its end, its worker's facts or its
    worker's certificates change. Certificates are the fingerprints that the worker may show to a
    proxy in mutual TLS, good at this moment; none means that it may not speak in that way.
    """

    worker_id: Ulid
    lease_id: Ulid
    run_id: str
    fence: int
    egress_profile: str
    egress_secret_sha256: DigestSha256
    expires_at_unix_ms: UnixMs
    facts: AttestedFacts = AttestedFacts()
    client_certificates_sha256: tuple[DigestSha256, ...] = ()


class ViewMessage(WireModel):
    """One line of a proxy's bindings stream.
    `snapshot` replaces everything; `bind`, `unbind`, `block`, `suspend` and what undoes them change
    one thing; `freeze` ends all egress until `thaw`; `tick` only says that the view is fresh.
    `epoch` grows at every start of the fleet's
    store, `seq` with every change; a proxy refuses a message with less of either than it has seen.
    """

    kind: Literal[
        "snapshot",
        "bind",
        "unbind",
        "block",
        "unblock",
        "suspend",
        "resume",
        "tick",
        "freeze",
        "thaw",
    ]
    epoch: int
    seq: int
    bindings: tuple[Binding, ...] = ()
    blocked_workers: tuple[Ulid, ...] = ()
    suspended_workers: tuple[Ulid, ...] = ()
    egress_frozen: bool = False
    lease_id: Ulid | None = None
    worker_id: Ulid | None = None
    highest_fence: int = 0
