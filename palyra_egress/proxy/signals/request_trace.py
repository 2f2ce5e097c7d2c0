"""A worker's request as one trace: judged, dialled, answered, and what a violation led to.

`RequestTraces` is one per proxy, `RequestTrace` one per verdict that is traced. Spans are made when
the verdict is released, so everything of a request that is not exported costs a coin's toss; one
that costs its worker something is always exported. What a span says stands in the audit log too:
the request is the one that was judged, redacted already, and without its query.
A trace is always begun here. The `traceparent` that a worker sends is its claim: it becomes a link
of ours, and decides nothing, not even whether the request is traced.
Times: Unix nanoseconds.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from mitmproxy.connection import Server

from palyra_egress.audit.entries import MAX_TARGET
from palyra_egress.credentials.injection import OfferedHeader
from palyra_egress.reasons import Reason, row
from palyra_egress.request import EgressRequest, RequestKind
from palyra_egress.verdict import Carriage, Consequence, TlsMode, Verdict
from palyra_fleet.clock import now_unix_ns
from palyra_fleet.traces.context import TraceContext, read_traceparent, travelling
from palyra_fleet.traces.spans import (
    Attribute,
    Attributes,
    Kind,
    OpenSpan,
    Spans,
    Value,
    known_method,
)

MAX_DELIVERIES: Final = 1_024
_NS: Final = 1_000_000_000
_OURS: Final = 500
"""From this status on an answer is a fault; that a worker is refused is none (HTTP conventions)."""
_GOOD: Final = frozenset({"complete", "client_closed"})
"""How an exchange ends without anybody's fault."""


@dataclass(slots=True)
class _Asked:
    """When judging began, which context the worker claims to be in, and how long a look-up took."""

    began_unix_ns: int
    claimed: TraceContext | None
    resolved: tuple[int, int] | None = None


_ASKED: Final[ContextVar[_Asked | None]] = ContextVar("palyra_asked", default=None)


@dataclass(slots=True)
class RequestTrace:
    """What is traced of one request. Nothing here fails, and nothing waits."""

    spans: Spans
    root: OpenSpan
    method: str
    server: str
    port: int
    began_unix_ns: int
    upstream: OpenSpan | None = None
    upstream_began_unix_ns: int = 0
    status: int | None = None
    peer: str | None = None

    @property
    def context(self) -> TraceContext:
        return self.root.context

    def leaves(self, server: Server) -> None:
        """The request's head is about to be written to this server. What was dialled for another
        request is no part of this one."""
        self.peer = None if server.peername is None else str(server.peername[0])
        moments = (server.timestamp_start, server.timestamp_tcp_setup, server.timestamp_tls_setup)
        dialled, connected, secured = (None if at is None else int(at * _NS) for at in moments)
        if dialled is None or connected is None or dialled < self.began_unix_ns:
            return
        self._step("dial", dialled, connected, {Attribute.PEER: self.peer})
        if secured is not None:
            self._step("tls handshake", connected, secured, {})

    def not_reached(self, server: Server, reason: Reason) -> None:
        """The server could not be dialled, or its TLS did not hold."""
        at = server.timestamp_start
        now = now_unix_ns()
        self._step("dial", now if at is None else int(at * _NS), now, {}, reason.value)

    def answered(self, status: int) -> None:
        """The head of the server's answer is there."""
        self.status = status

    def ended(self, outcome: str, sent: int, received: int) -> None:
        """The exchange is over."""
        now = now_unix_ns()
        error = None if outcome in _GOOD else outcome
        told: dict[Attribute, Value | None] = {
            Attribute.OUTCOME: outcome,
            Attribute.STATUS: self.status,
            Attribute.BYTES_OUT: sent,
            Attribute.BYTES_IN: received,
        }
        if self.upstream is not None:
            self.upstream.end(now, {**told, Attribute.PEER: self.peer}, error)
        self.root.end(now, told, error)

    def _step(
        self,
        name: str,
        began_unix_ns: int,
        ended_unix_ns: int,
        attributes: dict[Attribute, Value | None],
        error: str | None = None,
    ) -> None:
        parent = self.root if self.upstream is None else self.upstream
        where = {Attribute.SERVER: self.server, Attribute.PORT: self.port, **attributes}
        span = self.spans.begin(name, Kind.INTERNAL, began_unix_ns, where, parent=parent.context)
        span.end(max(began_unix_ns, ended_unix_ns), None, error)


@dataclass(slots=True)
class RequestTraces:
    """One per proxy; `spans` is None where no traces are asked for."""

    proxy_id: str = ""
    spans: Spans | None = None
    _deliveries: dict[int, TraceContext] = field(default_factory=dict)

    def asked(self, offered: OfferedHeader) -> None:
        """A request is about to be judged; `offered` gives the worker's values of a header."""
        if self.spans is not None:
            given = offered("traceparent")
            claimed = read_traceparent(given[0]) if len(given) == 1 else None
            _ASKED.set(_Asked(now_unix_ns(), claimed))

    async def timed(self, look_up: Callable[[], Awaitable[tuple[str, ...]]]) -> tuple[str, ...]:
        """A name is looked up for the request that is being judged."""
        asked = None if self.spans is None else _ASKED.get()
        if asked is None:
            return await look_up()
        began = now_unix_ns()
        try:
            return await look_up()
        finally:
            asked.resolved = (began, now_unix_ns())

    def decided(
        self,
        verdict: Verdict,
        request: EgressRequest,
        decision_id: str,
        evidence_seq: int | None,
    ) -> RequestTrace | None:
        """A verdict was released; None if it is not traced. `evidence_seq` is the number of the
        evidence it led to."""
        if self.spans is None:
            return None
        asked = _ASKED.get()
        _ASKED.set(None)
        costs = verdict.consequence is not Consequence.NONE and not verdict.allowed
        if not costs and not self.spans.is_sampled():
            return None
        now = now_unix_ns()
        began = now if asked is None else asked.began_unix_ns
        root = self.spans.begin(
            known_method(request.method),
            Kind.SERVER,
            began,
            {**_about(request), **self._decision(verdict, request, decision_id)},
            claimed=None if asked is None else asked.claimed,
        )
        trace = RequestTrace(
            self.spans, root, known_method(request.method), request.host, request.port, began
        )
        judged = self.spans.begin(
            "judge",
            Kind.INTERNAL,
            began,
            {Attribute.REASON: verdict.reason.value},
            parent=root.context,
        )
        if asked is not None and asked.resolved is not None:
            began, ended = asked.resolved
            where: Attributes = {Attribute.SERVER: request.host, Attribute.PORT: request.port}
            found = self.spans.begin("resolve", Kind.INTERNAL, began, where, parent=judged.context)
            found.end(ended)
        judged.end(now)
        if evidence_seq is not None:
            self._expect_delivery(evidence_seq, root.context)
        if not verdict.allowed:
            status = row(verdict.reason).http_status
            error = verdict.reason.value if status >= _OURS else None
            root.end(now, {Attribute.STATUS: status}, error)
        elif request.kind is RequestKind.CONNECT and not _is_carried(verdict.carriage):
            root.end(now, {Attribute.STATUS: 200})
        else:
            trace.upstream = self.spans.begin(
                trace.method, Kind.CLIENT, now, _about(request), parent=root.context
            )
        return trace

    @contextmanager
    def delivering(self, seq: int) -> Iterator["Delivery"]:
        """The evidence with this number is being handed in; the fleet goes on with its trace."""
        delivery, context = Delivery(), self._deliveries.get(seq)
        if self.spans is None or context is None:
            yield delivery
            return
        about: Attributes = {Attribute.EVIDENCE_SEQ: seq, Attribute.PROXY: self.proxy_id}
        span = self.spans.begin("evidence", Kind.CLIENT, now_unix_ns(), about, parent=context)
        try:
            with travelling(span.context):
                yield delivery
        finally:
            outcome = delivery.outcome
            error = "not_taken" if outcome is None else None
            span.end(now_unix_ns(), {Attribute.OUTCOME: outcome}, error)
            if outcome is not None:
                self._deliveries.pop(seq, None)

    def _expect_delivery(self, seq: int, context: TraceContext) -> None:
        self._deliveries[seq] = context
        if len(self._deliveries) > MAX_DELIVERIES:
            self._deliveries.pop(next(iter(self._deliveries)))

    def _decision(
        self, verdict: Verdict, request: EgressRequest, decision_id: str
    ) -> dict[Attribute, Value | None]:
        who = request.requester
        return {
            Attribute.DECISION_ID: decision_id,
            Attribute.EFFECT: verdict.effect.value,
            Attribute.REASON: verdict.reason.value,
            Attribute.CONSEQUENCE: verdict.consequence.value,
            Attribute.RULE_ID: verdict.rule_id,
            Attribute.POLICY_DIGEST: verdict.policy_digest,
            Attribute.WORKER_ID: who.worker_id,
            Attribute.LEASE_ID: who.lease_id,
            Attribute.RUN_ID: who.run_id or None,
            Attribute.PROFILE: who.profile,
            Attribute.PROXY: self.proxy_id,
        }


@dataclass(slots=True)
class Delivery:
    """One try to hand evidence in; `outcome` is what the fleet did about it."""

    outcome: str | None = None


def _about(request: EgressRequest) -> dict[Attribute, Value | None]:
    return {
        Attribute.METHOD: known_method(request.method),
        Attribute.SCHEME: request.scheme,
        Attribute.SERVER: request.host,
        Attribute.PORT: request.port,
        Attribute.PATH: request.path[:MAX_TARGET] or None,
    }


def _is_carried(carriage: Carriage) -> bool:
    """Whether a CONNECT's tunnel is passed on, and so goes on after its answer."""
    return carriage.mode is TlsMode.TUNNEL
