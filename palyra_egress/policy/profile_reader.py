"""Reads the profiles of a policy file, the facts they demand, and the facts of embedded tests.

Input: nodes of the document. Output: `ProfileSpec`s, `Requirements` and `AttestedFacts`; mistakes
go to the collector. A profile is a list of rule ids, or a mapping with `rules`, `limits` and
`requires`. What looks like a demand and demands nothing is refused (`requires: {}`, an empty list
of capabilities). An empty list of digests demands one of none: it is read, nobody meets it, and the
linter says so.
"""

from palyra_egress.facts import (
    BINDING_LEVELS,
    EXPECTED_CAPABILITY,
    EXPECTED_DIGEST,
    UNATTESTED,
    AttestedFacts,
    BindingLevel,
    is_capability,
    read_digest,
)
from palyra_egress.policy.errors import ProblemCode
from palyra_egress.policy.fields import Fields, describe
from palyra_egress.policy.language import PROFILE, Holds, Key, Section
from palyra_egress.policy.requirements import Requirements
from palyra_egress.policy.rule_reader import read_limits
from palyra_egress.policy.schema import LEAST_LEVELS, ProfileSpec
from palyra_egress.policy.values import EXPECTED_ID, is_identifier
from palyra_fleet.nearest_word import nearest
from palyra_fleet.strict_yaml.document import Mapping, Node, Position, Scalar, Sequence


def _level(fields: Fields, words: tuple[str, ...]) -> BindingLevel:
    node = fields.node("binding_level")
    if node is None:
        return BindingLevel.NONE
    if isinstance(node, Scalar) and node.value in words:
        return BINDING_LEVELS[node.text]
    fields.refuse(
        node.position,
        ProblemCode.BAD_VALUE,
        f"'binding_level' is {describe(node)}",
        f"one of {', '.join(words)}",
        nearest(node.text, words) if isinstance(node, Scalar) else None,
    )
    return BindingLevel.NONE


def _read_digest(fields: Fields, text: str, position: Position) -> str | None:
    digest = read_digest(text)
    if digest is None:
        lower = f"sha256:{text.lower().removeprefix('sha256:')}"
        suggestion = lower if read_digest(lower) is not None else None
        message = f"{text[:80]!r} is no digest"
        fields.refuse(position, ProblemCode.BAD_VALUE, message, EXPECTED_DIGEST, suggestion)
    return digest


def _digests(fields: Fields, name: str) -> frozenset[str] | None:
    given = fields.texts(name, "digests")
    if given is None:
        return None
    found = (_read_digest(fields, text, position) for text, position in given)
    return frozenset(digest for digest in found if digest is not None)


def _capabilities(fields: Fields) -> frozenset[str]:
    names: set[str] = set()
    for text, position in fields.texts("capabilities", "names of capabilities") or []:
        if is_capability(text):
            names.add(text)
        else:
            message = f"{text[:80]!r} is no name of a capability"
            fields.refuse(position, ProblemCode.BAD_VALUE, message, EXPECTED_CAPABILITY)
    return frozenset(names)


def _read_requirements(fields: Fields | None) -> Requirements | None:
    if fields is None:
        return None
    capabilities = fields.node("capabilities")
    if isinstance(capabilities, Sequence) and not capabilities.items:
        fields.refuse(
            capabilities.position,
            ProblemCode.BAD_VALUE,
            "'capabilities' names none, so it would demand nothing",
            "at least one capability, or no such key",
        )
    if not fields.mapping.entries:
        fields.refuse(
            fields.mapping.position,
            ProblemCode.BAD_VALUE,
            "'requires' demands nothing",
            f"one of {', '.join(sorted(fields.section.names))}, or no such key",
        )
    return Requirements(
        binding_level=_level(fields, LEAST_LEVELS),
        image_digests=_digests(fields, "image_digests"),
        build_digests=_digests(fields, "build_digests"),
        artifact_digests=_digests(fields, "artifact_digests"),
        capabilities=_capabilities(fields),
    )


def _fact_digest(fields: Fields, name: str) -> str | None:
    text, node = fields.text(name), fields.node(name)
    return None if text is None or node is None else _read_digest(fields, text, node.position)


def read_test_facts(fields: Fields | None) -> AttestedFacts:
    """The facts of an embedded test; nothing is known where it names none."""
    if fields is None:
        return UNATTESTED
    return AttestedFacts(
        image_digest=_fact_digest(fields, "image_digest"),
        build_digest=_fact_digest(fields, "build_digest"),
        artifact_digest=_fact_digest(fields, "artifact_digest"),
        capabilities=_capabilities(fields),
        binding_level=_level(fields, tuple(BINDING_LEVELS)),
    )


def _read_profile(name: str, key: Position, node: Node, names: Fields) -> ProfileSpec:
    problems = names.problems
    if not isinstance(node, Mapping):
        rule_ids = tuple(names.texts(name, "rule ids") or ())
        return ProfileSpec(name, key, rule_ids, problems.file)
    fields = Fields(node, PROFILE, problems)
    return ProfileSpec(
        name,
        key,
        tuple(fields.texts("rules", "rule ids") or ()),
        problems.file,
        read_limits(fields.sub("limits")),
        _read_requirements(fields.sub("requires")),
    )


def read_profiles(fields: Fields) -> tuple[ProfileSpec, ...]:
    """The profiles of a file, in their order."""
    node = fields.node("profiles")
    if node is None:
        return ()
    if not isinstance(node, Mapping):
        fields.wrong(node, "profiles", "a mapping from profile names to lists of rule ids")
        return ()
    names = Section("'profiles'", tuple(Key(name, Holds.RULE_ID, "") for name in node.entries))
    inner = Fields(node, names, fields.problems)
    profiles: list[ProfileSpec] = []
    for name, (key, value) in node.entries.items():
        if not is_identifier(name):
            fields.refuse(
                key.position,
                ProblemCode.BAD_VALUE,
                f"a profile is called {name[:60]!r}",
                EXPECTED_ID,
            )
        profiles.append(_read_profile(name, key.position, value, inner))
    return tuple(profiles)
