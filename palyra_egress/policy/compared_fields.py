"""Which fields of the model `policy diff` compares; what it does not know counts as widening.

Input: two policies' models. Output: every part whose fields without a row in `COMPARED` differ,
with its place. A field that joins the model and has no row here is therefore never waved through: a
change of it widens until the comparison understands it and its row says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Final, NamedTuple

from palyra_egress.policy.meaning import Meaning, meaning
from palyra_egress.policy.schema import CanarySpec, DenySpec, PolicySpec, ProfileSpec, RuleSpec
from palyra_fleet.strict_yaml.document import Position

_WHERE = frozenset({"file", "position"})
COMPARED: Final[Mapping[type, frozenset[str]]] = MappingProxyType(
    {
        PolicySpec: frozenset(
            {"file", "files", "name", "mode", "mode_position", "limits", "tls"}
            | {"rules", "deny", "canaries", "quarantine", "strike", "profiles", "tests", "ignores"}
        ),
        RuleSpec: _WHERE
        | {"rule_id", "hosts", "endpoints", "methods", "paths", "private", "until_unix_ms"}
        | {"limits", "observe", "encoded_slash", "owner", "reason", "acknowledged", "credentials"}
        | {"own_tls", "carriage", "inspected_keys", "log_query", "websocket"}
        | {"upstream_tls", "upstream_tls_places"},
        DenySpec: _WHERE | {"rule_id", "hosts", "reason"},
        CanarySpec: _WHERE | {"rule_id", "value", "secret", "owner", "reason"},
        ProfileSpec: _WHERE | {"name", "rule_ids", "limits", "requires"},
    }
)
"""Compared by grants, observers, budgets or costs, or changing no verdict (names, papers)."""

type _Part = PolicySpec | RuleSpec | DenySpec | CanarySpec | ProfileSpec


class Uncompared(NamedTuple):
    """One part with fields that changed and that the comparison does not know."""

    what: str
    file: str
    position: Position
    subject: str | None


def _parts(spec: PolicySpec) -> Iterator[tuple[tuple[str, str], _Part]]:
    yield ("the policy", ""), spec
    for rule in spec.rules:
        yield ("the rule", rule.rule_id), rule
    for deny in spec.deny:
        yield ("the deny rule", deny.rule_id), deny
    for canary in spec.canaries:
        yield ("the canary", canary.rule_id), canary
    for profile in spec.profiles:
        yield ("the profile", profile.name), profile


def _unknown(part: _Part | None) -> dict[str, Meaning]:
    """What the part says in fields without a row; what a field is by default says nothing."""
    if part is None:
        return {}
    known = COMPARED[type(part)]
    return {
        field.name: meaning(getattr(part, field.name))
        for field in fields(part)
        if field.name not in known and getattr(part, field.name) != field.default
    }


def uncompared(old: PolicySpec, new: PolicySpec) -> Iterator[Uncompared]:
    """Each part with such a change."""
    before, after = dict(_parts(old)), dict(_parts(new))
    for (kind, name), part in {**before, **after}.items():
        was, now = _unknown(before.get((kind, name))), _unknown(after.get((kind, name)))
        changed = sorted({*was, *now} - {one for one in was if one in now and was[one] == now[one]})
        if changed:
            subject = name or None
            where = Position() if isinstance(part, PolicySpec) else part.position
            called = f"{kind} {name}".rstrip()
            what = f"{called}: {', '.join(changed)} is another, and what that opens is not known"
            yield Uncompared(what, part.file or new.file, where, subject)
