"""Mirror of policy/requirements.py: what a profile demands, and which facts meet it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.facts import UNATTESTED, AttestedFacts, BindingLevel
from palyra_egress.policy.requirements import Requirements, Unmet, covers, describe, unmet

A, B = "a" * 64, "b" * 64
CAPABILITIES = st.frozensets(st.sampled_from(["gpu", "net.read", "net.write"]))
DIGESTS = st.none() | st.frozensets(st.sampled_from([A, B]))
REQUIREMENTS = st.builds(
    Requirements, st.sampled_from(BindingLevel), DIGESTS, DIGESTS, DIGESTS, CAPABILITIES
)
DIGEST = st.sampled_from([None, A, B, "c" * 64])
FACTS = st.builds(
    AttestedFacts, DIGEST, DIGEST, DIGEST, CAPABILITIES, st.sampled_from(BindingLevel)
)
EVERYTHING = AttestedFacts(A, A, A, frozenset({"gpu", "net.read"}), BindingLevel.ENFORCED)
FULL = Requirements(
    BindingLevel.ENFORCED, frozenset({A, B}), frozenset({A}), frozenset({A}), frozenset({"gpu"})
)


@pytest.mark.parametrize(
    ("less", "told"),
    [
        (
            {"binding_level": BindingLevel.OBSERVED},
            Unmet("binding_level", "at least enforced", "observed"),
        ),
        (
            {"binding_level": BindingLevel.NONE},
            Unmet("binding_level", "at least enforced", "none"),
        ),
        (
            {"image_digest": None},
            Unmet("image_digest", f"one of sha256:{A}, sha256:{B}", "not known"),
        ),
        ({"build_digest": B}, Unmet("build_digest", f"one of sha256:{A}", f"sha256:{B}")),
        ({"artifact_digest": None}, Unmet("artifact_digest", f"one of sha256:{A}", "not known")),
        ({"capabilities": frozenset()}, Unmet("capabilities", "gpu", "not known")),
        ({"capabilities": frozenset({"net.read"})}, Unmet("capabilities", "gpu", "net.read")),
    ],
)
def test_each_demand_alone_is_told_with_what_was_expected_and_seen(less, told) -> None:
    assert FULL.are_met(EVERYTHING) and not list(unmet(FULL, EVERYTHING))
    facts = replace(EVERYTHING, **less)
    assert not FULL.are_met(facts)
    assert list(unmet(FULL, facts)) == [told]


def test_nothing_that_is_known_meets_no_demand() -> None:
    for demand in (
        Requirements(BindingLevel.CLAIMED),
        Requirements(image_digests=frozenset({A})),
        Requirements(build_digests=frozenset({A})),
        Requirements(artifact_digests=frozenset({A})),
        Requirements(capabilities=frozenset({"gpu"})),
    ):
        assert not demand.are_met(UNATTESTED)


def test_one_of_no_digests_is_met_by_nobody() -> None:
    nobody = Requirements(image_digests=frozenset())
    assert not nobody.can_be_met and not nobody.are_met(EVERYTHING)
    assert next(iter(unmet(nobody, EVERYTHING))).expected == "none at all"
    assert describe(nobody) == "image_digest one of none"


@given(REQUIREMENTS, FACTS)
def test_facts_meet_demands_exactly_if_nothing_is_unmet(
    demands: Requirements, facts: AttestedFacts
) -> None:
    assert demands.are_met(facts) is not bool(list(unmet(demands, facts)))
    assert demands.can_be_met or not demands.are_met(facts)


@given(REQUIREMENTS, FACTS, CAPABILITIES, st.sampled_from(BindingLevel), DIGESTS)
def test_demanding_more_only_refuses_more(
    demands: Requirements,
    facts: AttestedFacts,
    more: frozenset[str],
    level: BindingLevel,
    fewer: frozenset[str] | None,
) -> None:
    images = demands.image_digests
    stricter = replace(
        demands,
        binding_level=max(level, demands.binding_level),
        capabilities=demands.capabilities | more,
        image_digests=images if fewer is None else fewer & (fewer if images is None else images),
    )
    assert demands.are_met(facts) or not stricter.are_met(facts)
    assert covers(demands, stricter)


@given(st.none() | REQUIREMENTS, st.none() | REQUIREMENTS, FACTS)
def test_what_covers_is_met_by_whoever_meets_the_other(
    wide: Requirements | None, narrow: Requirements | None, facts: AttestedFacts
) -> None:
    if covers(wide, narrow) and (narrow is None or narrow.are_met(facts)):
        assert wide is None or wide.are_met(facts)
    assert covers(wide, wide) and covers(None, narrow)


@given(REQUIREMENTS, FACTS)
def test_a_fact_that_is_lost_never_helps(demands: Requirements, facts: AttestedFacts) -> None:
    for less in (
        UNATTESTED,
        replace(facts, image_digest=None),
        replace(facts, capabilities=frozenset()),
        replace(facts, binding_level=BindingLevel.NONE),
    ):
        assert demands.are_met(facts) or not demands.are_met(less)


@given(REQUIREMENTS, FACTS)
def test_only_demands_that_are_not_met_are_contradicted(
    demands: Requirements, facts: AttestedFacts
) -> None:
    assert not (demands.are_met(facts) and demands.are_contradicted(facts))
    assert not demands.are_contradicted(UNATTESTED)
