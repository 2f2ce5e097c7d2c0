"""Requests of a test's requester, as a stranger would write them."""

from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.request import EgressRequest, Requester


def asked(method: str, target: str, profile: str) -> EgressRequest:
    requester = Requester("worker", "lease", profile)
    if method == "CONNECT":
        return connect_from_authority(target, requester)
    return judge_request_from_url(method, target, requester)
