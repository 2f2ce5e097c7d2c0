"""EgressProxyPolicyService: the one object that everybody asks.

It holds the policy in force and the (address, port) pairs where the proxy and the fleet listen, and
answers through the pure judge. Inputs: canonical requests, resolved addresses, the time in Unix
milliseconds. Invariants: without a policy every answer is DENY with POLICY_NOT_LOADED; a policy is
replaced in one step, and one call sees one policy from beginning to end; any internal fault is a
DENY with INTERNAL. It reads no clock, no file and no network, and it knows nothing of mitmproxy.
"""

from collections.abc import Iterable, Sequence

from palyra_egress.destination.address_class import classify
from palyra_egress.policy.compile import NO_PENALTY, CompiledPolicy
from palyra_egress.policy.decide import (
    NOTHING_FORBIDDEN,
    Forbidden,
    decide,
    deny_without_rule,
    precheck,
)
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest
from palyra_egress.verdict import Account, NeedsResolution, Verdict

NO_POLICY_DIGEST = ""
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 compared, not bound


def canonical_listeners(pairs: Iterable[tuple[str, int]]) -> Forbidden:
    """The pairs with every address in its one spelling; an unparsable address is a fault of ours.

    `0.0.0.0` and `::` stand for every loopback address; that they stand for the machine's other
    addresses too is found when dialling (`wildcard_ports`).
    """
    listeners = set()
    for address, port in pairs:
        classified = classify(address)
        if not classified.parts:
            raise ValueError(f"not an IP address: {address!r}")
        listeners.add((classified.text, port))
    return frozenset(listeners)


class EgressProxyPolicyService:
    """Asked by the proxy, the command line and the admin API; see the module's invariants."""

    def __init__(
        self,
        policy: CompiledPolicy | None = None,
        forbidden: frozenset[tuple[str, int]] = NOTHING_FORBIDDEN,
    ) -> None:
        self._policy = policy
        self._forbidden = canonical_listeners(forbidden)

    @property
    def policy(self) -> CompiledPolicy | None:
        """The policy in force."""
        return self._policy

    @property
    def policy_digest(self) -> str:
        """The digest of the policy in force, empty if there is none."""
        policy = self._policy
        return NO_POLICY_DIGEST if policy is None else policy.digest

    def rates(self, profile_name: str) -> tuple[Account, ...]:
        """The rates that hold for whatever one worker asks under a profile, allowed or not."""
        policy = self._policy
        if policy is None:
            return ()
        profile = policy.profiles.get(profile_name)
        return policy.rates if profile is None else profile.rates

    def replace_policy(self, policy: CompiledPolicy | None) -> None:
        """Puts a policy in force in one step; None refuses everything from now on."""
        self._policy = policy

    def replace_forbidden(self, forbidden: frozenset[tuple[str, int]]) -> None:
        """Names the listeners that are never targets; called when a listener is bound."""
        self._forbidden = canonical_listeners(forbidden)

    @property
    def wildcard_ports(self) -> frozenset[int]:
        """Ports of ours that are open on every address of this machine, known or not."""
        return frozenset(port for address, port in self._forbidden if address in _EVERYWHERE)

    def precheck(self, request: EgressRequest, now_unix_ms: int) -> Verdict | NeedsResolution:
        """The verdict, or the name to resolve first. A refused name is never resolved."""
        policy = self._policy
        if policy is None:
            return deny_without_rule(request, Reason.POLICY_NOT_LOADED, NO_POLICY_DIGEST)
        return precheck(policy, request, now_unix_ms, self._forbidden)

    def decide(
        self,
        request: EgressRequest,
        addresses: Sequence[str],
        now_unix_ms: int,
        judged: NeedsResolution | None = None,
    ) -> Verdict:
        """The final verdict for the addresses that the name resolved to.

        `judged` is what `precheck` answered about this request; it only saves time.
        """
        policy = self._policy
        if policy is None:
            return deny_without_rule(request, Reason.POLICY_NOT_LOADED, NO_POLICY_DIGEST)
        return decide(policy, request, addresses, now_unix_ms, self._forbidden, judged)

    def refusal(
        self, request: EgressRequest, reason: Reason, canary_id: str | None = None
    ) -> Verdict:
        """A refusal that was found outside the judge (identity, rate, SNI, resolver, leaks), with
        what the policy says it costs the worker, and the place of the canary that was sent, if one
        was. Total."""
        policy = self._policy
        if policy is None:
            return deny_without_rule(request, reason, NO_POLICY_DIGEST)
        penalty = policy.penalties.get(reason, NO_PENALTY)
        canary = policy.canaries.get(canary_id) if canary_id is not None else None
        return deny_without_rule(request, reason, policy.digest)._replace(
            rule_id=None if canary is None else canary.rule_id,
            policy_file=policy.file if canary is None else canary.file,
            line=None if canary is None else canary.line,
            consequence=penalty.consequence,
            strike_limit=penalty.limit,
            strike_window_ms=penalty.window_ms,
        )
