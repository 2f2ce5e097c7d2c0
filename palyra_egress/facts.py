"""Attested facts: what the fleet has verified about the worker that asks.

Digests are 64 lower-case hex digits of SHA-256, written `sha256:…` wherever people read or write
them. None and an empty set mean that nothing is known, and what is not known satisfies no
requirement. Facts come from the fleet's view of a lease, never from the worker.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Final

DIGEST_PATTERN: Final = "sha256:[0-9a-f]{64}"
EXPECTED_DIGEST: Final = "sha256: and 64 lower-case hex digits"
CAPABILITY_PATTERN: Final = "[a-z0-9][a-z0-9._-]{0,63}"
EXPECTED_CAPABILITY: Final = "lower-case letters, digits, '.', '_' and '-'"
_DIGEST: Final = re.compile(DIGEST_PATTERN, re.ASCII)
_CAPABILITY: Final = re.compile(CAPABILITY_PATTERN, re.ASCII)


class BindingLevel(IntEnum):
    """How well it is known that a worker's egress goes through a proxy; higher is better."""

    NONE = 0
    CLAIMED = 1
    OBSERVED = 2
    ENFORCED = 3

    @property
    def word(self) -> str:
        return self.name.lower()


BINDING_LEVELS: Final = {level.word: level for level in BindingLevel}


@dataclass(frozen=True, slots=True)
class AttestedFacts:
    """Field names are those that policy files, cases and audit entries use."""

    image_digest: str | None = None
    build_digest: str | None = None
    artifact_digest: str | None = None
    capabilities: frozenset[str] = frozenset()
    binding_level: BindingLevel = BindingLevel.NONE

    def holds_all_of(self, before: "AttestedFacts") -> bool:
        """True if every fact that was known before still is."""
        return (
            before.image_digest in (None, self.image_digest)
            and before.build_digest in (None, self.build_digest)
            and before.artifact_digest in (None, self.artifact_digest)
            and before.capabilities <= self.capabilities
            and before.binding_level <= self.binding_level
        )


UNATTESTED: Final = AttestedFacts()
"""Nothing is known."""
FACT_NAMES: Final = tuple(field.name for field in fields(AttestedFacts))
DIGEST_NAMES: Final = ("image_digest", "build_digest", "artifact_digest")


class FactsRefused(ValueError):
    """What was given is no fact; `name` says which, the text what was expected."""

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(f"{name} is not {expected}")
        self.name = name
        self.expected = expected


def read_digest(text: str) -> str | None:
    """The hex digits of `sha256:…`, or None for any other spelling."""
    return text.removeprefix("sha256:") if _DIGEST.fullmatch(text) else None


def write_digest(digest_sha256: str) -> str:
    return f"sha256:{digest_sha256}"


def is_capability(text: str) -> bool:
    return _CAPABILITY.fullmatch(text) is not None


def _digest(given: Mapping[str, object], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    digest = read_digest(value) if isinstance(value, str) else None
    if digest is None:
        raise FactsRefused(name, EXPECTED_DIGEST)
    return digest


def read_facts(given: Mapping[str, object]) -> AttestedFacts:
    """Facts out of a decoded JSON object. Null is a fact that is not known, and a name that is no
    fact of ours is not looked at: it satisfies nothing. Raises `FactsRefused`."""
    image, build, artifact = (_digest(given, name) for name in DIGEST_NAMES)
    capabilities, level = given.get("capabilities") or (), given.get("binding_level")
    if not isinstance(capabilities, list | tuple) or not all(
        isinstance(one, str) and is_capability(one) for one in capabilities
    ):
        raise FactsRefused("capabilities", f"a list of names: {EXPECTED_CAPABILITY}")
    if level is None:
        found = BindingLevel.NONE
    elif isinstance(level, str) and level in BINDING_LEVELS:
        found = BINDING_LEVELS[level]
    else:
        raise FactsRefused("binding_level", f"one of {', '.join(BINDING_LEVELS)}")
    return AttestedFacts(image, build, artifact, frozenset(capabilities), found)


def write_facts(facts: AttestedFacts) -> dict[str, object]:
    """The facts that are known, as an object that `read_facts` takes."""
    written: dict[str, object] = {
        name: write_digest(digest)
        for name in DIGEST_NAMES
        if (digest := getattr(facts, name)) is not None
    }
    if facts.capabilities:
        written["capabilities"] = sorted(facts.capabilities)
    if facts.binding_level is not BindingLevel.NONE:
        written["binding_level"] = facts.binding_level.word
    return written
