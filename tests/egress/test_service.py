"""Mirror of service.py: one policy at a time, and nothing without one."""

import pytest

from palyra_egress.reasons import Reason
from palyra_egress.service import EgressProxyPolicyService
from palyra_egress.verdict import Effect, NeedsResolution, Verdict
from tests.egress.policy.policy_text import PUBLIC, request, rules

ASKED = request("GET https://a.x.test/")


def test_without_a_policy_everything_is_refused() -> None:
    service = EgressProxyPolicyService(None)
    first = service.precheck(ASKED, 0)
    assert isinstance(first, Verdict) and first.reason is Reason.POLICY_NOT_LOADED
    final = service.decide(ASKED, PUBLIC, 0)
    assert final.effect is Effect.DENY and final.reason is Reason.POLICY_NOT_LOADED
    assert service.policy_digest == "" and service.rates("p") == ()


def test_a_policy_is_replaced_in_one_step() -> None:
    first = rules("hosts: [a.x.test]", more="limits: {requests_per_minute: 7}\n")
    service = EgressProxyPolicyService(first)
    assert service.policy_digest == first.digest
    for profile in ("p", "no such profile"):
        assert [rate.limits.requests_per_minute for rate in service.rates(profile)] == [7]
    assert isinstance(service.precheck(ASKED, 0), NeedsResolution)
    assert service.decide(ASKED, PUBLIC, 0).pinned == PUBLIC
    second = rules("hosts: [b.x.test]")
    service.replace_policy(second)
    assert service.decide(ASKED, PUBLIC, 0).reason is Reason.HOST_NOT_ALLOWED
    assert service.decide(ASKED, PUBLIC, 0).policy_digest == second.digest
    service.replace_policy(None)
    assert service.decide(ASKED, PUBLIC, 0).reason is Reason.POLICY_NOT_LOADED


def test_listeners_are_compared_in_their_one_spelling() -> None:
    policy = rules("hosts: [a.x.test], private: [127.0.0.0/8, '::1']")
    service = EgressProxyPolicyService(policy, frozenset({("0:0:0:0:0:0:0:1", 443)}))
    assert service.decide(ASKED, ["::1"], 0).reason is Reason.PROXY_TARGET
    assert service.decide(ASKED, ["127.0.0.1"], 0).allowed
    service.replace_forbidden(frozenset({("127.0.0.1", 443)}))
    assert service.decide(ASKED, ["127.0.0.1"], 0).reason is Reason.PROXY_TARGET


def test_a_listener_that_is_no_address_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        EgressProxyPolicyService(None, frozenset({("localhost", 443)}))
