"""What a profile demands of the worker that asks, and whether the attested facts meet it. Pure.

Every demand must be met. A fact that is not known meets none. More demands, more capabilities,
fewer digests and a higher level only ever refuse more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from palyra_egress.facts import DIGEST_NAMES, AttestedFacts, BindingLevel, write_digest

NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Requirements:
    """At least this level, one of these digests (None: any, known or not), all capabilities."""

    binding_level: BindingLevel = BindingLevel.NONE
    image_digests: frozenset[str] | None = None
    build_digests: frozenset[str] | None = None
    artifact_digests: frozenset[str] | None = None
    capabilities: frozenset[str] = frozenset()

    def digests(self, name: str) -> frozenset[str] | None:
        """The digests demanded for one fact, by the name of the fact."""
        found: frozenset[str] | None = getattr(self, f"{name}s")
        return found

    def are_met(self, facts: AttestedFacts) -> bool:
        return (
            facts.binding_level >= self.binding_level
            and (self.image_digests is None or facts.image_digest in self.image_digests)
            and (self.build_digests is None or facts.build_digest in self.build_digests)
            and (self.artifact_digests is None or facts.artifact_digest in self.artifact_digests)
            and self.capabilities <= facts.capabilities
        )

    def are_contradicted(self, facts: AttestedFacts) -> bool:
        """True if a fact that is known fails a demand. What is merely not known may be our own
        doing (an upgrade, a restored fleet), so it refuses and never costs a worker anything."""
        wrong_digest = any(
            (wanted := self.digests(name)) is not None
            and (digest := getattr(facts, name)) is not None
            and digest not in wanted
            for name in DIGEST_NAMES
        )
        too_low = BindingLevel.NONE < facts.binding_level < self.binding_level
        return (
            wrong_digest
            or too_low
            or (bool(facts.capabilities) and not self.capabilities <= facts.capabilities)
        )

    @property
    def can_be_met(self) -> bool:
        """False if a list of digests is empty: no worker has one of none."""
        return all(self.digests(name) != frozenset() for name in DIGEST_NAMES)


class Unmet(NamedTuple):
    """One demand that the facts do not meet, in words."""

    fact: str
    expected: str
    seen: str


def unmet(requires: Requirements, facts: AttestedFacts) -> Iterator[Unmet]:
    """Every demand that is not met; none exactly if all are."""
    if facts.binding_level < requires.binding_level:
        seen = facts.binding_level.word
        yield Unmet("binding_level", f"at least {requires.binding_level.word}", seen)
    for name in DIGEST_NAMES:
        wanted, digest = requires.digests(name), getattr(facts, name)
        if wanted is not None and digest not in wanted:
            expected = ", ".join(write_digest(one) for one in sorted(wanted)) or "none at all"
            seen = NOT_KNOWN if digest is None else write_digest(digest)
            yield Unmet(name, f"one of {expected}" if wanted else expected, seen)
    missing = requires.capabilities - facts.capabilities
    if missing:
        seen = ", ".join(sorted(facts.capabilities)) or NOT_KNOWN
        yield Unmet("capabilities", ", ".join(sorted(requires.capabilities)), seen)


def covers(wide: Requirements | None, narrow: Requirements | None) -> bool:
    """True if whoever meets `narrow` meets `wide` too; None demands nothing."""
    if wide is None:
        return True
    inner = Requirements() if narrow is None else narrow
    if not inner.can_be_met:
        return True
    for name in DIGEST_NAMES:
        outer_digests, inner_digests = wide.digests(name), inner.digests(name)
        if outer_digests is None:
            continue
        if inner_digests is None or not inner_digests <= outer_digests:
            return False
    return wide.binding_level <= inner.binding_level and wide.capabilities <= inner.capabilities


def describe(requires: Requirements) -> str:
    """The demands on one line, as `explain` and `diff` show them."""
    words = []
    if requires.binding_level is not BindingLevel.NONE:
        words.append(f"binding_level at least {requires.binding_level.word}")
    for name in DIGEST_NAMES:
        wanted = requires.digests(name)
        if wanted is not None:
            words.append(f"{name} one of {', '.join(map(write_digest, sorted(wanted))) or 'none'}")
    if requires.capabilities:
        words.append(f"capabilities {', '.join(sorted(requires.capabilities))}")
    return "; ".join(words)
