"""Reads `upstream_tls`: which roots the servers of a rule are verified by, and which certificate
the proxy shows them.

Input: the fields of a rule or a test. Output: the names, and where they stand. A rule that names
either speaks https inside inspected tunnels and nothing else: in plain http nobody is verified and
nothing can be shown. What the names stand for is set up on the proxy, whose gate refuses a policy
that names something else; no key and no certificate stands in a policy.
"""

from typing import Final

from palyra_egress.policy.errors import ProblemCode
from palyra_egress.policy.fields import Fields
from palyra_egress.request import Scheme
from palyra_egress.verdict import USUAL_TLS, UpstreamTls
from palyra_fleet.strict_yaml.document import Mapping, Position

EXPECTED: Final = "`roots`, `client_certificate` or both"


def read_upstream_tls(fields: Fields) -> UpstreamTls | None:
    """What stands under `upstream_tls`; None where it is absent or wrong."""
    inside = fields.sub("upstream_tls")
    if inside is None:
        return None
    names = {key: inside.identifier(key) for key in inside.section.names if inside.has(key)}
    if not inside.mapping.entries:
        fields.refuse(
            inside.mapping.position, ProblemCode.BAD_VALUE, "'upstream_tls' says nothing", EXPECTED
        )
    return UpstreamTls(names.get("roots") or None, names.get("client_certificate") or None)


def read_rule_tls(fields: Fields, schemes: set[Scheme]) -> UpstreamTls:
    """How the servers of a rule are met; `schemes` are those of the rule."""
    found = read_upstream_tls(fields)
    if found is not None and "http" in schemes:
        fields.refuse(
            fields.mapping.entries["upstream_tls"][0].position,
            ProblemCode.BAD_VALUE,
            "a rule with 'upstream_tls' lets plain http pass, where no server is verified",
            "`schemes: [https]`, or a rule of its own for http, without 'upstream_tls'",
        )
    return found or USUAL_TLS


def upstream_tls_places(fields: Fields) -> tuple[tuple[str, Position], ...]:
    """Where the names stand, for who has to say that one of them means nothing here."""
    node = fields.node("upstream_tls")
    entries = node.entries if isinstance(node, Mapping) else {}
    return tuple((key, value.position) for key, (_, value) in entries.items())
