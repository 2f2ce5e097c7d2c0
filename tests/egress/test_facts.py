"""Mirror of facts.py: what is known about a worker, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.facts import (
    BINDING_LEVELS,
    UNATTESTED,
    AttestedFacts,
    BindingLevel,
    FactsRefused,
    read_facts,
    write_facts,
)
from palyra_fleet.attestation import result
from palyra_fleet.wire import view_models

DIGESTS = st.none() | st.sampled_from(["a" * 64, "b" * 64, "0123456789abcdef" * 4])
FACTS = st.builds(
    AttestedFacts,
    DIGESTS,
    DIGESTS,
    DIGESTS,
    st.frozensets(st.sampled_from(["gpu", "net.read", "x-1"])),
    st.sampled_from(BindingLevel),
)


@given(FACTS)
def test_what_is_written_is_read_back(facts: AttestedFacts) -> None:
    assert read_facts(write_facts(facts)) == facts


def test_nothing_is_known_of_an_empty_object_or_of_nulls() -> None:
    assert read_facts({}) == UNATTESTED
    nulls = dict.fromkeys(("image_digest", "capabilities", "binding_level"))
    assert read_facts(nulls) == UNATTESTED and write_facts(UNATTESTED) == {}


def test_a_name_that_is_no_fact_of_ours_says_nothing() -> None:
    assert read_facts({"binding-level": "enforced", "region": "here"}) == UNATTESTED


@pytest.mark.parametrize(
    ("given_facts", "told"),
    [
        ({"image_digest": "a" * 64}, "image_digest is not sha256:"),
        ({"build_digest": "sha256:" + "A" * 64}, "build_digest is not sha256:"),
        ({"artifact_digest": "sha256:" + "a" * 63}, "artifact_digest is not sha256:"),
        ({"image_digest": "sha256:" + "a" * 64 + chr(10)}, "image_digest is not sha256:"),
        ({"image_digest": 7}, "image_digest is not sha256:"),
        ({"capabilities": "gpu"}, "capabilities is not a list"),
        ({"capabilities": ["GPU"]}, "capabilities is not a list"),
        ({"capabilities": [1]}, "capabilities is not a list"),
        ({"binding_level": "Enforced"}, "binding_level is not one of none, claimed"),
        ({"binding_level": 3}, "binding_level is not one of none, claimed"),
    ],
)
def test_what_is_no_fact_is_refused_with_what_was_expected(
    given_facts: dict[str, object], told: str
) -> None:
    with pytest.raises(FactsRefused, match=told):
        read_facts(given_facts)


def test_proxy_fleet_and_wire_have_the_same_levels_in_the_same_order() -> None:
    words = [level.word for level in BindingLevel]
    assert [level.name.lower() for level in result.BindingLevel] == words == list(BINDING_LEVELS)
    assert [int(level) for level in result.BindingLevel] == [int(level) for level in BindingLevel]
    schema = view_models.AttestedFacts.model_json_schema()
    assert schema["properties"]["binding_level"]["enum"] == words


@given(FACTS, FACTS)
def test_facts_hold_all_of_others_exactly_if_none_was_lost(
    before: AttestedFacts, after: AttestedFacts
) -> None:
    lost = [
        name
        for name in ("image_digest", "build_digest", "artifact_digest")
        if getattr(before, name) is not None and getattr(before, name) != getattr(after, name)
    ]
    lost += sorted(before.capabilities - after.capabilities)
    lost += ["level"] if after.binding_level < before.binding_level else []
    assert after.holds_all_of(before) is not bool(lost)
    assert after.holds_all_of(UNATTESTED) and after.holds_all_of(after)
