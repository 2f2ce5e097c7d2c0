"""What a proxy counts of its traffic and tells the fleet, and what the fleet makes of it.

A report is cumulative: everything since the proxy started (`since_unix_ms`), so that a lost report
costs nothing. Rules are counted since their policy came into force, and workers since the proxy
knows them; of both only the busiest are told, and how many were left out. All sizes are bounded and
all words have a form, so that a proxy can be wrong about numbers and about nothing else. Times:
Unix ms; bytes are those of bodies and tunnels, seen from the worker.
"""

from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints, model_validator

from palyra_fleet.wire.models import DigestSha256, Name, Ulid, UnixMs, WireModel

MAX_REASONS: Final = 128
MAX_RULES: Final = 128
MAX_WORKERS: Final = 32
MAX_PROXIES: Final = 256
MINUTES_KEPT: Final = 180
MINUTE_MS: Final = 60_000
REPORTS_APART_MS: Final = 500
REASONS_LEFT_OUT: Final = "fleet.reasons_left_out"
"""Stands for reasons beyond the bound, where reports are added up."""

Count = Annotated[int, Field(ge=0, le=2**53)]
ReasonCode = Annotated[str, StringConstraints(pattern=r"^(egress|fleet)\.[a-z][a-z0-9_]{0,47}$")]
RuleId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class RuleVerdicts(WireModel):
    """How often one rule decided."""

    rule_id: RuleId
    allowed: Count = 0
    refused: Count = 0


class WorkerBytes(WireModel):
    """What one worker sent and received."""

    worker_id: Ulid
    bytes_out: Count = 0
    bytes_in: Count = 0


class TrafficReport(WireModel):
    """One proxy's counts. `policy_digest` is the policy that `rules` are of; `rules_left_out` and
    `workers_left_out` are those that did not fit."""

    since_unix_ms: UnixMs
    allowed: Annotated[dict[ReasonCode, Count], Field(max_length=MAX_REASONS)] = Field(
        default_factory=dict
    )
    refused: Annotated[dict[ReasonCode, Count], Field(max_length=MAX_REASONS)] = Field(
        default_factory=dict
    )
    bytes_out: Count = 0
    bytes_in: Count = 0
    policy_digest: DigestSha256 | None = None
    rules: Annotated[tuple[RuleVerdicts, ...], Field(max_length=MAX_RULES)] = ()
    rules_left_out: Count = 0
    workers: Annotated[tuple[WorkerBytes, ...], Field(max_length=MAX_WORKERS)] = ()
    workers_left_out: Count = 0

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        rules = {one.rule_id for one in self.rules}
        workers = {one.worker_id for one in self.workers}
        if len(rules) != len(self.rules) or len(workers) != len(self.workers):
            raise ValueError("a rule or a worker is named twice")
        return self


class TrafficMinute(WireModel):
    """What all proxies reported in one minute."""

    at_unix_ms: UnixMs
    allowed: int = 0
    refused: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    refused_by_reason: dict[ReasonCode, int] = Field(default_factory=dict)


class ProxyTraffic(WireModel):
    """The last report of one proxy, and how often its counts began anew since the fleet started."""

    proxy_id: Name
    heard_at_unix_ms: UnixMs
    restarts: int
    report: TrafficReport


class TrafficView(WireModel):
    """The traffic of the last three hours, by the minute, oldest first and without empty minutes.
    Kept in memory: nothing is known from before `known_since_unix_ms`, when the fleet started."""

    known_since_unix_ms: UnixMs
    minutes: tuple[TrafficMinute, ...]
    proxies: tuple[ProxyTraffic, ...]
