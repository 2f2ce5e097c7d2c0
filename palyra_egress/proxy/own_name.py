"""What the proxy answers under its own name: a receipt, or whether a lease is known to it.

`identify` and `refuse_head` are the connection's guard: who is asking, and the audited refusal.
"""

from collections.abc import Callable

from mitmproxy import http

from palyra_egress.proxy.core import EnforcementCore
from palyra_egress.proxy.guard.receipt import LEASE_KNOWN, ReceiptIssuer, asks_for_lease
from palyra_egress.proxy.http.denial import Answer
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_egress.reasons import Reason


def answer_own(
    core: EnforcementCore,
    receipts: ReceiptIssuer,
    head: RequestHead,
    headers: http.Headers,
    identify: Callable[[http.Headers], Reason | None],
    refuse_head: Callable[[Reason], Answer],
) -> Answer:
    """The answer to a request for the proxy's own name."""
    if (reason := core.admission()) is not None:
        return refuse_head(reason)
    if asks_for_lease(head):
        refusal = identify(headers)
        return LEASE_KNOWN if refusal is None else refuse_head(refusal)
    digest, now = core.service.policy_digest, core.clocks.now_unix_ms()
    receipt = receipts.issue(head, headers, digest, now)
    if receipt is None:
        return refuse_head(Reason.REQUEST_MALFORMED)
    reason = core.receipt_refusal(receipt.worker_key_sha256)
    return receipt.answer if reason is None else refuse_head(reason)
