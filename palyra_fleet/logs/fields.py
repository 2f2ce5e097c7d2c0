"""The fields of log lines and of exported events, in one table, and what goes with each line.

Names are those of the Elastic Common Schema; what it has no name for stands under `palyra.`, as it
asks of custom fields. `told` puts fields into a log call (`extra=`); `within` puts them into every
line that is written inside its block, also by tasks that begin there. A name that was released
never changes. Source: the Elastic Common Schema reference, 8.11 (read November 2026).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from types import MappingProxyType
from typing import Final

ECS_VERSION: Final = "8.11.0"
ATTRIBUTE: Final = "palyra_fields"
"""Where a log record keeps its fields."""

type Value = str | int | bool


class Field(StrEnum):
    """A field beside those that every line has. Each has exactly one row in `MEANINGS`."""

    DECISION_ID = "palyra.decision.id"
    WORKER_ID = "palyra.worker.id"
    LEASE_ID = "palyra.lease.id"
    RUN_ID = "palyra.run.id"
    PROFILE = "palyra.profile"
    CONSEQUENCE = "palyra.consequence"
    POLICY_FILE = "palyra.policy.file"
    POLICY_LINE = "palyra.policy.line"
    POLICY_DIGEST = "palyra.policy.digest"
    RULE_ID = "rule.id"
    ACTION = "event.action"
    REASON = "event.reason"
    SEQUENCE = "event.sequence"
    ACTOR = "user.name"
    REQUEST_ID = "http.request.id"
    METHOD = "http.request.method"
    STATUS = "http.response.status_code"
    ROUTE = "url.path"
    ADDRESS = "source.ip"
    RECEIVER = "palyra.receiver"
    TRACE_ID = "trace.id"


MEANINGS: Final[Mapping[Field, str]] = MappingProxyType(
    {
        Field.DECISION_ID: "the proxy's verdict: in the refusal, the audit log, the evidence, the"
        " event log, the quarantine's record and the console",
        Field.WORKER_ID: "the worker it is about",
        Field.LEASE_ID: "its lease",
        Field.RUN_ID: "its run",
        Field.PROFILE: "the profile it was judged by",
        Field.CONSEQUENCE: "what a refusal costs the worker: none, strike or quarantine",
        Field.POLICY_FILE: "the file of the deciding rule",
        Field.POLICY_LINE: "the line where that rule begins",
        Field.POLICY_DIGEST: "SHA-256 of the policy that judged",
        Field.RULE_ID: "the deciding rule",
        Field.ACTION: "what happened: the spelling of the event log",
        Field.REASON: "why: a reason code, or an operator's own words",
        Field.SEQUENCE: "the place in the fleet's event log",
        Field.ACTOR: "who did it: a principal, `proxy:NAME`, or the fleet",
        Field.REQUEST_ID: "the call: what its answer carries as `Palyra-Request-Id`",
        Field.METHOD: "the call's method",
        Field.STATUS: "the status it was answered with",
        Field.ROUTE: "the call's route, with names in place of values",
        Field.ADDRESS: "where the call came from",
        Field.RECEIVER: "which receiver of exported events",
        Field.TRACE_ID: "the trace it belongs to, where it is exported",
    }
)

_WITHIN: Final[ContextVar[Mapping[Field, Value]]] = ContextVar(
    "palyra_log_fields", default=MappingProxyType({})
)


def told(fields: Mapping[Field, Value | None]) -> dict[str, Mapping[Field, Value]]:
    """Fields as the `extra` of a log call; what is None is left out."""
    return {ATTRIBUTE: {name: value for name, value in fields.items() if value is not None}}


@contextmanager
def within(fields: Mapping[Field, Value], *, alone: bool = False) -> Iterator[None]:
    """Every line of the block carries these fields, and `alone` no others from around it."""
    token = _WITHIN.set(dict(fields) if alone else {**_WITHIN.get(), **fields})
    try:
        yield
    finally:
        _WITHIN.reset(token)


def around() -> Mapping[Field, Value]:
    """What the blocks around here say."""
    return _WITHIN.get()
