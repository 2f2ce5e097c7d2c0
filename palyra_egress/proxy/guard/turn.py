"""One turn of a connection: a request from its head on, and what the worker is told about it.

HTTP/1 has one turn at a time, HTTP/2 one per stream. A turn that was granted holds its exchange. A
refusal of a request without a body is an ordinary response, and the connection goes on. While a
body may still come, or once a response cannot be passed on, the answer waits here until the strict
server asks for it, sends it, and ends the stream (HTTP/1: hangs up).
"""

from dataclasses import dataclass, field

from mitmproxy import http

from palyra_egress.proxy.guard.exchange import Exchange
from palyra_egress.proxy.http.denial import Answer, refuse
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.reasons import Reason


def answer_to(judgement: Judgement, *, close: bool = True) -> Answer:
    """The refusal of a judgement."""
    return refuse(judgement.reason, judgement.decision_id, close=close)


def response_of(answer: Answer) -> http.Response:
    """An answer as mitmproxy's response object, for flows that are answered without an upstream."""
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=answer.status,
        reason=answer.phrase.encode(),
        headers=http.Headers([(n.encode(), v.encode()) for n, v in answer.headers]),
        content=answer.body,
        trailers=None,
        timestamp_start=0.0,
        timestamp_end=0.0,
    )


@dataclass(slots=True, eq=False)
class Turn:
    """`head` until it was looked at; `authority` is what an HTTP/2 stream names, None in HTTP/1;
    `has_body` whether one may follow the head. `upstream_failure` is why the upstream could not be
    used; `ends_connection` that nothing goes on behind the answer; `is_unanswered` that its server
    took the request and did not answer in time."""

    stream_id: int
    flow_id: str
    head: RequestHead | None
    authority: str | None = None
    has_body: bool = False
    decision_id: str = ""
    exchange: Exchange | None = None
    upstream_failure: Reason | None = None
    ends_connection: bool = False
    is_answered: bool = False
    is_unanswered: bool = False
    is_finished: bool = False
    _pending: Answer | None = None

    def take_head(self) -> RequestHead | None:
        """The checked head, once."""
        head, self.head = self.head, None
        return head

    def hold(self, answer: Answer) -> None:
        """Keep an answer for the strict server, which is about to ask."""
        self._pending = answer

    def give(self, flow: http.HTTPFlow, answer: Answer) -> None:
        """Answer a flow without an upstream."""
        self.is_answered = True
        if flow.request.method != "CONNECT" and self.has_body:
            self._pending = answer
            flow.kill()  # type: ignore[no-untyped-call]
        else:
            flow.response = response_of(answer)
            if flow.request.method == "HEAD":  # RFC 9110 section 9.3.2
                flow.response.data.content = b""

    def fail(self, flow: http.HTTPFlow, reason: Reason) -> None:
        """End an exchange whose response cannot be passed on."""
        self.break_off(reason)
        flow.kill()  # type: ignore[no-untyped-call]

    def break_off(self, reason: Reason) -> None:
        """The worker is told `reason`, if it can still be told anything."""
        self._pending = refuse(reason, self.decision_id, close=True)
        self.upstream_failure = reason

    def take(self, reason: Reason | None) -> Answer | None:
        """The answer that was kept, or the generic one for a failure (`reason`); None when nothing
        may be said any more."""
        pending, self._pending = self._pending, None
        if pending is not None or reason is None:
            return pending
        return refuse(self.upstream_failure or reason, self.decision_id, close=True)


@dataclass(slots=True)
class Turns:
    """The turns of one connection that are not over, by stream and by flow."""

    _by_stream: dict[int, Turn] = field(default_factory=dict)
    _by_flow: dict[str, Turn] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_stream)

    def begin(self, turn: Turn) -> None:
        """One more turn; in HTTP/1 it takes the place of the last one."""
        if turn.authority is None:
            self._by_stream.clear()
            self._by_flow.clear()
        self._by_stream[turn.stream_id] = turn
        self._by_flow[turn.flow_id] = turn

    def of_stream(self, stream_id: int) -> Turn | None:
        return self._by_stream.get(stream_id)

    def of_flow(self, flow: http.HTTPFlow) -> Turn | None:
        return self._by_flow.get(flow.id)

    def drop(self, turn: Turn) -> None:
        """The turn is over."""
        self._by_stream.pop(turn.stream_id, None)
        self._by_flow.pop(turn.flow_id, None)

    def open(self) -> list[tuple[Turn, Exchange]]:
        """The turns whose exchange is going on."""
        return [
            (turn, turn.exchange)
            for turn in self._by_stream.values()
            if turn.exchange is not None and not turn.exchange.ended
        ]

    def keep(self, stream_ids: set[int]) -> list[Turn]:
        """Drop the turns of every other stream; those that were dropped."""
        gone = [turn for turn in self._by_stream.values() if turn.stream_id not in stream_ids]
        for turn in gone:
            self.drop(turn)
        return gone
