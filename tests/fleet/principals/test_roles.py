"""What each role permits, in one visible table."""

import itertools

import pytest

from palyra_fleet.principals.roles import permits
from palyra_fleet.wire.principal_models import Role

LOOK, STOP, LET_IN, TRUST = Role

PERMITTED = {
    frozenset(): set(),
    frozenset({LOOK}): {LOOK},
    frozenset({STOP}): {LOOK, STOP},
    frozenset({LET_IN}): {LOOK, LET_IN},
    frozenset({STOP, LET_IN}): {LOOK, STOP, LET_IN},
    frozenset({TRUST}): {LOOK, STOP, LET_IN, TRUST},
}


@pytest.mark.parametrize(("held", "needed"), tuple(itertools.product(PERMITTED, Role)))
def test_a_role_permits_what_the_table_says(held: frozenset[Role], needed: Role) -> None:
    assert permits(held, needed) is (needed in PERMITTED[held])
