"""How a rule's tunnels are carried: inspected, or passed on unseen; and what follows from that.

A rule says `tls: inspect` or `tls: tunnel`, or takes the policy's `tls: {default: …}`. In a tunnel
that is passed on the proxy sees a host and a port and nothing else, so a rule that tunnels speaks
about whole connections: it allows every request there, and a key that only inspection could keep
(methods, paths, credentials, upstream_tls) refuses the file. `settle` is asked once the whole
policy is read, because the default may stand in another file. Pure.
"""

from dataclasses import replace
from typing import Final

from palyra_egress.policy.errors import ProblemCode, Problems
from palyra_egress.policy.fields import Fields
from palyra_egress.policy.schema import KNOWN_METHODS, RuleSpec
from palyra_egress.verdict import Carriage, TlsMode
from palyra_fleet.strict_yaml.document import Position

INSPECTED_KEYS: Final = (
    "methods",
    "paths",
    "encoded_slash",
    "credentials",
    "upstream_tls",
    "log_query",
    "websocket",
)
"""Keys that are about single requests."""


def read_exceptions(fields: Fields) -> Carriage:
    """Which ClientHellos the rule accepts beyond the usual; the mode is settled later."""
    return Carriage(missing_sni=fields.boolean("missing_sni"), ech=fields.boolean("ech"))


def inspected_keys(fields: Fields) -> tuple[tuple[str, Position], ...]:
    """Which keys of the rule only inspection can keep, and where they stand."""
    entries = fields.mapping.entries
    return tuple((name, entries[name][0].position) for name in INSPECTED_KEYS if name in entries)


def settle(rule: RuleSpec, default: TlsMode, problems: Problems) -> RuleSpec:
    """The rule with its carriage. What does not go together is a problem of the rule's file."""
    schemes = {scheme for scheme, _ in rule.endpoints}
    mode = rule.own_tls or (default if "https" in schemes else TlsMode.INSPECT)
    mine = problems.of(rule.file)
    if "https" not in schemes and (rule.carriage.missing_sni or rule.carriage.ech):
        mine.add(
            rule.position,
            ProblemCode.BAD_VALUE,
            f"the rule {rule.rule_id!r} says which TLS handshakes it accepts, and allows no https",
            expected="schemes: [https], or neither missing_sni nor ech",
        )
    if mode is TlsMode.INSPECT:
        if rule.carriage.ech and "https" in schemes:
            mine.add(
                rule.position,
                ProblemCode.BAD_VALUE,
                f"the rule {rule.rule_id!r} has 'ech', and its tunnels are inspected: the proxy"
                " answers the handshake itself, so nothing stays encrypted in it",
                expected="`tls: tunnel`, or no 'ech'",
            )
        return replace(rule, carriage=replace(rule.carriage, mode=mode))
    if "http" in schemes:
        mine.add(
            rule.position,
            ProblemCode.BAD_VALUE,
            f"the rule {rule.rule_id!r} tunnels, and plain http has no TLS to pass on",
            expected="schemes: [https], and a rule of its own for http",
        )
    for name, position in rule.inspected_keys:
        is_secret = name == "credentials"
        mine.add(
            position,
            ProblemCode.CREDENTIAL_IN_TUNNEL if is_secret else ProblemCode.BAD_VALUE,
            f"the rule {rule.rule_id!r} tunnels: what is inside is not seen, so {name!r}"
            " could not be enforced",
            expected=f"`tls: inspect`, or no {name!r}",
        )
    return replace(
        rule,
        methods=tuple(sorted(KNOWN_METHODS)),
        paths=None,
        encoded_slash=True,
        carriage=replace(rule.carriage, mode=mode),
    )
