"""WorkerFleetPolicy: the limits and requirements a fleet holds its workers to.

Times are milliseconds. The defaults are those of the specification and admit nobody: what admits a
worker (reference values, launchers, proxies) is enrolled by operators and starts out empty.
"""

from dataclasses import dataclass

from palyra_fleet.attestation.result import BindingLevel

MINUTE_MS = 60_000
BEATS_IN_TIMEOUT = 6
REQUIRED_WIT_ABI = "palyra-worker-abi/v1"


@dataclass(frozen=True, slots=True)
class WorkerFleetPolicy:
    """What a worker must be, and how much the fleet hands out.

    `attested_until` is the least of the evidence's end, `attestation_max_ms` and
    `binding_max_age_ms` from now, so that no lease outlives the proof it rests on. `lease_max_ms`
    is the longest time from a lease's latest grant or renewal to its end, not of the whole run: the
    run is bounded by its grant, and lasts only as long as the worker proves itself again.
    `lease_binding_max_age_ms` is how old a proxy's receipt may be when a lease is given.
    `heartbeats_per_second` is what the fleet takes in all: workers are told to beat less often
    where they are many, and missed later: up to `heartbeat_timeout_max_ms`, where that is more than
    `heartbeat_timeout_ms`. With `two_person_release` no worker leaves quarantine unless one
    principal asks and another approves; a request is good for `release_request_ms` at most, and
    never longer than the evidence that it speaks of. `offer_ms` is how long a run is kept for the
    worker that it is offered to. `reattest_within_ms` is how long a worker has to show the new
    evidence that an operator demands, where the operator does not say.
    """

    max_workers: int = 10_000
    max_leases: int = 10_000
    leases_per_worker: int = 1
    leases_per_principal: int = 1_000
    lease_max_ms: int = 15 * MINUTE_MS
    heartbeat_timeout_ms: int = 30_000
    heartbeat_timeout_max_ms: int = 15 * MINUTE_MS
    heartbeats_per_second: int = 2_000
    attestation_max_ms: int = 60 * MINUTE_MS
    binding_max_age_ms: int = 15 * MINUTE_MS
    lease_binding_max_age_ms: int = MINUTE_MS
    nonce_ttl_ms: int = MINUTE_MS
    least_binding_level: BindingLevel = BindingLevel.OBSERVED
    trusted_capabilities: frozenset[str] = frozenset()
    required_sdk_protocol_version: int = 1
    required_wit_abi_version: str = REQUIRED_WIT_ABI
    required_capability_authority_sha256: str | None = None
    workspace_root: str = "/"
    storm_quarantines_per_minute: int = 20
    proxy_silence_ms: int = 15_000
    two_person_release: bool = False
    release_request_ms: int = 60 * MINUTE_MS
    offer_ms: int = 10_000
    reattest_within_ms: int = 5 * MINUTE_MS

    def __post_init__(self) -> None:
        if self.leases_per_worker != 1:
            text = "only 1: a quarantine or a bad clean-up of one run must not be another run's"
            raise ValueError(f"leases_per_worker: {text} (decision 0079)")
        if self.least_binding_level < BindingLevel.OBSERVED:
            raise ValueError("least_binding_level: 'observed' at least; a claim proves nothing")
        amounts = (
            self.max_workers,
            self.max_leases,
            self.leases_per_principal,
            self.lease_max_ms,
            self.heartbeat_timeout_ms,
            self.heartbeats_per_second,
            self.attestation_max_ms,
            self.binding_max_age_ms,
            self.lease_binding_max_age_ms,
            self.nonce_ttl_ms,
            self.storm_quarantines_per_minute,
            self.proxy_silence_ms,
            self.release_request_ms,
            self.offer_ms,
            self.reattest_within_ms,
        )
        if min(amounts) < 1:
            raise ValueError("every limit of the fleet policy must be at least 1")

    def heartbeat_timeout_of(self, workers: int) -> int:
        """How long a worker may be silent in a fleet of this size. It is told to beat within a
        third of that and beats twice as often, so six beats come in one timeout."""
        for_all_ms = workers * BEATS_IN_TIMEOUT * 1_000 // self.heartbeats_per_second
        return max(self.heartbeat_timeout_ms, min(for_all_ms, self.heartbeat_timeout_max_ms))
