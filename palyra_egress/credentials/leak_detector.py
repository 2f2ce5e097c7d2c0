"""What must not leave right now: the policy's canaries and every secret that the proxy holds.

A `LeakDetector` compiles them once for each policy and each state of the secrets (`version`), and
says in a `Watch` what to look for. A canary whose secret is missing makes the watch incomplete:
what cannot be looked for cannot be let pass, so the caller refuses. `lease_patterns` watches for a
lease's own proxy credential without keeping it: for its beginning, which nobody can use.
Pure but for what it remembers; may be asked from several threads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from palyra_egress.credentials.binding import SecretLookup
from palyra_egress.credentials.patterns import PatternSet, Watched
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.reasons import Reason

LEASE_NAME: Final = "the lease's proxy credential"
HELD_NAME: Final = "a held secret"
LEASE_BEGINNING: Final = 12
"""Of the 43 signs of a lease's secret: 72 bits, so not found by chance; 186 stay unknown."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What to look for. `with_lease` says that the speaker's own credential belongs to it."""

    sets: tuple[PatternSet, ...] = ()
    with_lease: bool = False
    is_complete: bool = True


NOTHING: Final = Watch()


class LeakDetector:
    """One per proxy."""

    def __init__(self, secrets: SecretLookup) -> None:
        self._secrets = secrets
        self._made: tuple[CompiledPolicy, int, Watch] | None = None

    def watch(self, policy: CompiledPolicy | None) -> Watch:
        """What to look for under this policy with the secrets that are held now."""
        if policy is None:
            return NOTHING
        version, made = self._secrets.version, self._made
        if made is None or made[0] is not policy or made[1] != version:
            made = self._made = (policy, version, self._make(policy))
        return made[2]

    def _make(self, policy: CompiledPolicy) -> Watch:
        canaries = list(self._canaries(policy))
        watched = [one for one in canaries if one is not None]
        watched += self._held(policy)
        return Watch(
            sets=(PatternSet(watched),) if watched else (),
            with_lease=bool(watched) or Reason.CREDENTIAL_LEAK in policy.penalties,
            is_complete=None not in canaries,
        )

    def _canaries(self, policy: CompiledPolicy) -> Iterator[Watched | None]:
        """Each canary, or None where its secret is missing."""
        for canary in policy.spec.canaries:
            value = canary.value
            if canary.secret is not None:
                held = self._secrets.get(canary.secret)
                value = None if held is None else held.reveal()
            yield None if value is None else Watched(value.encode(), Reason.CANARY, canary.rule_id)

    def _held(self, policy: CompiledPolicy) -> Iterator[Watched]:
        """The secrets that the policy names, by those names, then all others."""
        for ref in sorted(policy.secrets):
            held = self._secrets.get(ref)
            if held is not None:
                yield Watched(held.reveal().encode(), Reason.CREDENTIAL_LEAK, str(ref))
        for held in self._secrets.values():
            yield Watched(held.reveal().encode(), Reason.CREDENTIAL_LEAK, HELD_NAME)


@lru_cache(maxsize=128)
def lease_patterns(beginning: str) -> PatternSet:
    """What to look for of a lease's own credential, by its first `LEASE_BEGINNING` signs."""
    return PatternSet([Watched(beginning.encode(), Reason.CREDENTIAL_LEAK, LEASE_NAME)])
