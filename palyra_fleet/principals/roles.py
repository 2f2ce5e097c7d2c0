"""The roles of operators, and what holding them permits. Pure.

A role says what its holder is for: *viewers* look; *operators* stop things (quarantine, cordon,
drain, revoke); *approvers* let things in (grants, releases, devices that want to pair); *admins*
change what is trusted (enrolments, reference values, bans, principals). Everyone may look. An
operator does not approve and an approver does not operate, so that two people can be asked for; a
principal may hold several roles, and an admin holds all. No role permits nothing.
"""

from collections.abc import Mapping
from typing import Final

from palyra_fleet.wire.principal_models import Role

type Roles = frozenset[Role]

_INCLUDES: Final[Mapping[Role, Roles]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.OPERATOR: frozenset({Role.OPERATOR, Role.VIEWER}),
    Role.APPROVER: frozenset({Role.APPROVER, Role.VIEWER}),
    Role.ADMIN: frozenset(Role),
}


def permits(held: Roles, needed: Role) -> bool:
    """Whether one of the roles held is the role needed, or includes it."""
    return any(needed in _INCLUDES[role] for role in held)
