"""What the worker of one connection will be told instead of an upstream's answer.

A refusal of a request without a body is an ordinary response, and the connection goes on. While a
body may still come, or once a response cannot be passed on, the answer waits here until the strict
HTTP/1 server asks for it, sends it, and hangs up. One request at a time.
"""

from mitmproxy import http

from palyra_egress.proxy.core import Judgement
from palyra_egress.proxy.denial import Answer, refuse
from palyra_egress.proxy.exchange import body_may_follow
from palyra_egress.proxy.layers import response_of
from palyra_egress.reasons import Reason


def answer_to(judgement: Judgement, *, close: bool = True) -> Answer:
    """The refusal of a judgement."""
    return refuse(judgement.reason, judgement.decision_id, close=close)


class Answers:
    """The answers of one connection. `upstream_failure` is why the upstream could not be used."""

    def __init__(self) -> None:
        self.upstream_failure: Reason | None = None
        self._answered_flow_id: str | None = None
        self._pending: Answer | None = None

    def begin(self) -> None:
        """A new request: nothing of the last one holds."""
        self.upstream_failure = None
        self._pending = None

    def has_answered(self, flow: http.HTTPFlow) -> bool:
        """Whether this flow is answered here and goes nowhere."""
        return self._answered_flow_id == flow.id

    def hold(self, answer: Answer) -> None:
        """Keep an answer for the strict server, which is about to ask."""
        self._pending = answer

    def give(self, flow: http.HTTPFlow, answer: Answer) -> None:
        """Answer a flow without an upstream."""
        self._answered_flow_id = flow.id
        if flow.request.method != "CONNECT" and body_may_follow(flow.request):
            self._pending = answer
            flow.kill()  # type: ignore[no-untyped-call]
        else:
            flow.response = response_of(answer)

    def fail(self, flow: http.HTTPFlow, reason: Reason, decision_id: str) -> None:
        """End an exchange whose response cannot be passed on."""
        self._pending = refuse(reason, decision_id, close=True)
        self.upstream_failure = reason
        flow.kill()  # type: ignore[no-untyped-call]

    def take(self, reason: Reason | None, decision_id: str) -> Answer | None:
        """The answer that was kept, or the generic one for a failure (`reason`); None when nothing
        may be said any more."""
        pending, self._pending = self._pending, None
        if pending is not None or reason is None:
            return pending
        return refuse(self.upstream_failure or reason, decision_id, close=True)
