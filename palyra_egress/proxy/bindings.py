"""The proxy's live view of who may speak: one binding per live lease, pushed by the fleet.

`BindingView` answers two questions: whose credential is this, and may that lease still speak. It
fails closed: no message yet, a view older than its allowed age, or a fleet that came back with a
smaller epoch, sequence or fence than was seen before denies everybody. Workers that the proxy
blocked itself stay blocked until the fleet has acknowledged the evidence, has shown them as blocked
and no longer does. Times: `now_unix_ms` for leases, `now_monotonic_ms` for freshness. Pure.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

from palyra_egress.facts import BINDING_LEVELS, UNATTESTED, AttestedFacts
from palyra_egress.proxy.channels.channel import Channel
from palyra_egress.reasons import Reason
from palyra_egress.request import Requester
from palyra_fleet.wire.view_models import AttestedFacts as TrustedFacts
from palyra_fleet.wire.view_models import Binding, ViewMessage

DEFAULT_MAX_AGE_MS = 5_000


@dataclass(frozen=True, slots=True)
class Ended:
    """Egress that must stop now: leases that lost their binding or a fact about their worker,
    workers that are blocked, and connections that came with a certificate no lease has any more;
    with a reason for `everything`, all of it."""

    lease_ids: frozenset[str] = frozenset()
    worker_ids: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()
    everything: Reason | None = None


@dataclass(frozen=True, slots=True)
class Authentication:
    """The requester whose secret was right, if any, and why it may not speak, if so."""

    requester: Requester | None
    refusal: Reason | None


@dataclass(slots=True)
class BindingView:
    """All bindings by lease id, the blocked workers, and how fresh they are. `version` grows with
    every change of what is bound."""

    max_age_ms: int = DEFAULT_MAX_AGE_MS
    _bindings: dict[str, Binding] = field(default_factory=dict, repr=False)
    _ended: dict[str, Binding] = field(default_factory=dict, repr=False)
    _blocked_by_fleet: set[str] = field(default_factory=set)
    _suspended: set[str] = field(default_factory=set)
    _blocked_here: set[str] = field(default_factory=set)
    _acknowledged: set[str] = field(default_factory=set)
    _epoch: int = 0
    _seq: int = 0
    _highest_fence: int = 0
    _heard_at_monotonic_ms: int | None = None
    _rolled_back: bool = False
    _egress_frozen: bool = False
    version: int = 0

    @property
    def heard(self) -> tuple[int, int] | None:
        """The (epoch, seq) from which the stream may go on; None where only a snapshot will do."""
        known = self._heard_at_monotonic_ms is not None and not self._rolled_back
        return (self._epoch, self._seq) if known else None

    def refusal(self, now_monotonic_ms: int) -> Reason | None:
        """Why nobody at all may speak, or None."""
        if self._rolled_back:
            return Reason.EPOCH_ROLLBACK
        heard = self._heard_at_monotonic_ms
        if heard is None or now_monotonic_ms - heard > self.max_age_ms:
            return Reason.VIEW_STALE
        return None

    def authenticate(
        self, lease_id: str, secret: str, now_unix_ms: int, now_monotonic_ms: int
    ) -> Authentication:
        """Whose credential this is and whether it may speak. A right secret of an ended lease
        names its requester, so that the refusal can be audited under the worker's name."""
        binding = self._bindings.get(lease_id) or self._ended.get(lease_id)
        if (reason := self.refusal(now_monotonic_ms)) is not None:
            return Authentication(None, reason)
        if binding is None:
            return Authentication(None, Reason.NO_LEASE)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        if not hmac.compare_digest(digest, binding.egress_secret_sha256):
            return Authentication(None, Reason.BAD_CREDENTIALS)
        requester = _requester(binding)
        return Authentication(requester, self.may_speak(requester, now_unix_ms, now_monotonic_ms))

    def recognise(
        self, channel: Channel, now_unix_ms: int, now_monotonic_ms: int
    ) -> Authentication:
        """Who speaks on a channel: the worker that it names, under the lease that lives. It names
        the worker also where that may not speak, so that the refusal stands under its name."""
        if (reason := self.refusal(now_monotonic_ms)) is not None:
            return Authentication(None, reason)
        binding = self._binding_on(channel)
        if binding is None:
            return Authentication(None, Reason.NO_LEASE)
        who = _requester(binding)
        reason = self.may_speak(who, now_unix_ms, now_monotonic_ms)
        return Authentication(who, reason or self.channel_refusal(channel, who, now_unix_ms))

    def channel_refusal(
        self, channel: Channel, requester: Requester, now_unix_ms: int
    ) -> Reason | None:
        """Why a channel does not speak for this requester any more, or None. Asked on every
        request."""
        if channel.worker_id != requester.worker_id:
            return Reason.FOREIGN_CREDENTIALS
        if channel.lease_id not in (None, requester.lease_id):
            return Reason.IDENTITY_CHANGED
        binding = self._bindings.get(requester.lease_id)
        bound = () if binding is None else binding.client_certificates_sha256
        if channel.certificate is not None and channel.certificate not in bound:
            return Reason.CERTIFICATE_NOT_BOUND
        return channel.refusal(now_unix_ms)

    def _binding_on(self, channel: Channel) -> Binding | None:
        """The lease that a channel may speak under. A worker has one lease at most; were there
        more, a channel that names none of them speaks for none."""
        if channel.lease_id is not None:
            return self._bindings.get(channel.lease_id) or self._ended.get(channel.lease_id)
        found = [b for b in self._bindings.values() if b.worker_id == channel.worker_id]
        if not found:
            found = [b for b in self._ended.values() if b.worker_id == channel.worker_id][-1:]
        return found[0] if len(found) == 1 else None

    def live_leases(self) -> dict[str, str]:
        """Worker id by lease id, of every lease that is bound now."""
        return {lease_id: binding.worker_id for lease_id, binding in self._bindings.items()}

    def may_speak(
        self, requester: Requester, now_unix_ms: int, now_monotonic_ms: int
    ) -> Reason | None:
        """Why this requester may not speak any more, or None. Asked again on every request."""
        if (reason := self.refusal(now_monotonic_ms)) is not None:
            return reason
        if self.is_blocked(requester.worker_id):
            return Reason.QUARANTINED
        if self._egress_frozen:
            return Reason.EGRESS_FROZEN
        if requester.worker_id in self._suspended:
            return Reason.EGRESS_SUSPENDED
        binding = self._bindings.get(requester.lease_id)
        if binding is None or binding.fence != requester.fence:
            return Reason.NO_LEASE
        if binding.worker_id != requester.worker_id:
            return Reason.NO_LEASE
        if binding.expires_at_unix_ms <= now_unix_ms:
            return Reason.LEASE_EXPIRED
        return None

    def facts_of(self, requester: Requester) -> AttestedFacts:
        """What the fleet says now about the worker behind a lease; nothing, if the lease is gone.
        Asked again on every request: a worker may have proved itself anew since it connected."""
        binding = self._bindings.get(requester.lease_id)
        is_same = binding is not None and binding.fence == requester.fence
        return known_facts(binding.facts) if binding is not None and is_same else UNATTESTED

    def forget(self) -> None:
        """Believe nothing until the fleet is heard again. Blocks, epoch and fence stay."""
        self._heard_at_monotonic_ms = None

    def is_blocked(self, worker_id: str) -> bool:
        return worker_id in self._blocked_here or worker_id in self._blocked_by_fleet

    def block_here(self, worker_id: str) -> None:
        """Block a worker at once, before the fleet knows."""
        self._blocked_here.add(worker_id)
        self._acknowledged.discard(worker_id)

    def evidence_delivered(self, worker_id: str) -> None:
        """The fleet has acknowledged the evidence: once its view shows the worker as blocked, its
        word alone counts. Until then the block stays ours: what the stream still carries may be
        older than the acknowledgement."""
        self._acknowledged.add(worker_id)
        self._hand_over()

    def _hand_over(self) -> None:
        """Leave to the fleet what it has acknowledged and shows as blocked."""
        for worker_id in self._acknowledged & self._blocked_by_fleet:
            self._acknowledged.discard(worker_id)
            self._blocked_here.discard(worker_id)

    def expired(self, now_unix_ms: int) -> Ended:
        """Drop bindings whose time is over, with no word from the fleet needed."""
        over = [b for b in self._bindings.values() if b.expires_at_unix_ms <= now_unix_ms]
        for binding in over:
            self._end(binding.lease_id)
        return Ended(lease_ids=frozenset(binding.lease_id for binding in over))

    def apply(self, message: ViewMessage, now_monotonic_ms: int) -> Ended:
        """Take one message of the fleet's stream; what must stop because of it."""
        if (
            message.epoch < self._epoch
            or message.highest_fence < self._highest_fence
            or (message.epoch == self._epoch and message.seq < self._seq)
        ):
            self._rolled_back = True
            return Ended(lease_ids=frozenset(self._bindings))
        self._epoch, self._seq = message.epoch, message.seq
        self._highest_fence = message.highest_fence
        self._heard_at_monotonic_ms = now_monotonic_ms
        return self._change(message)

    def _change(self, message: ViewMessage) -> Ended:
        match message.kind:
            case "snapshot":
                return self._replace(message)
            case "bind":
                return self._bind(message.bindings)
            case "unbind":
                if message.lease_id is None:
                    return Ended()
                self._end(message.lease_id)
                return Ended(lease_ids=frozenset({message.lease_id}))
            case "block":
                workers = frozenset(message.blocked_workers) | (
                    {message.worker_id} if message.worker_id else set()
                )
                self._blocked_by_fleet |= workers
                self._hand_over()
                return Ended(worker_ids=workers)
            case "unblock":
                if message.worker_id is not None:
                    self._blocked_by_fleet.discard(message.worker_id)
                return Ended()
            case "suspend":
                workers = frozenset({message.worker_id} if message.worker_id else ())
                self._suspended |= workers
                return Ended(worker_ids=workers)
            case "resume":
                self._suspended.discard(message.worker_id or "")
                return Ended()
            case "freeze":
                self._egress_frozen = True
                return Ended(everything=Reason.EGRESS_FROZEN)
            case "thaw":
                self._egress_frozen = False
                return Ended()
            case "tick":
                return Ended()

    def _bind(self, bindings: tuple[Binding, ...]) -> Ended:
        """A worker that is known for less than before loses what is open: it was judged on more."""
        self.version += 1
        replaced: set[str] = set()
        unbound: set[str] = set()
        for binding in bindings:
            before = self._bindings.get(binding.lease_id)
            if not _carries_on(before, binding):
                replaced.add(binding.lease_id)
            unbound |= _unbound(before, binding)
            self._bindings[binding.lease_id] = binding
        return Ended(frozenset(replaced), certificates=frozenset(unbound))

    def _replace(self, message: ViewMessage) -> Ended:
        new = {binding.lease_id: binding for binding in message.bindings}
        gone = {
            lease_id
            for lease_id, binding in self._bindings.items()
            if lease_id not in new or new[lease_id].fence != binding.fence
        }
        lost = {
            lease_id
            for lease_id, binding in new.items()
            if not _carries_on(self._bindings.get(lease_id), binding)
        }
        unbound = {
            certificate
            for lease_id, binding in new.items()
            for certificate in _unbound(self._bindings.get(lease_id), binding)
        }
        for lease_id in gone:
            self._end(lease_id)
        self.version += 1
        self._bindings = new
        self._blocked_by_fleet = set(message.blocked_workers)
        self._suspended = set(message.suspended_workers)
        self._hand_over()
        self._egress_frozen = message.egress_frozen
        if self._egress_frozen:
            return Ended(everything=Reason.EGRESS_FROZEN)
        blocked = frozenset(self._blocked_by_fleet | self._suspended)
        return Ended(frozenset(gone | lost), blocked, frozenset(unbound))

    def _end(self, lease_id: str) -> None:
        """Forget a binding, remembering a bounded number so that refusals can say why."""
        binding = self._bindings.pop(lease_id, None)
        if binding is None:
            return
        self.version += 1
        self._ended[lease_id] = binding
        while len(self._ended) > 10_000:
            del self._ended[next(iter(self._ended))]


def _requester(binding: Binding) -> Requester:
    return Requester(
        worker_id=binding.worker_id,
        lease_id=binding.lease_id,
        profile=binding.egress_profile,
        run_id=binding.run_id,
        fence=binding.fence,
        facts=known_facts(binding.facts),
    )


def _unbound(before: Binding | None, after: Binding) -> set[str]:
    """The certificates that a lease had and has no more."""
    had = () if before is None else before.client_certificates_sha256
    return set(had) - set(after.client_certificates_sha256)


def known_facts(told: TrustedFacts) -> AttestedFacts:
    """What the fleet verified about a worker, as the judge takes it."""
    return AttestedFacts(
        image_digest=told.image_digest_sha256,
        build_digest=told.build_digest_sha256,
        artifact_digest=told.artifact_digest_sha256,
        capabilities=frozenset(told.capabilities),
        binding_level=BINDING_LEVELS[told.binding_level],
    )


def _carries_on(before: Binding | None, after: Binding) -> bool:
    """Whether what is open under a lease may go on now that it is bound like this."""
    if before is None:
        return True
    return before.fence == after.fence and known_facts(after.facts).holds_all_of(
        known_facts(before.facts)
    )
