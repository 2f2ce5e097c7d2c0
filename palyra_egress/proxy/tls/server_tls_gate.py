"""Which policies may be in force here, by the roots and client certificates that their rules name.

A name that is not set up refuses the policy, with file, line and column and the name that was
probably meant; a running proxy goes on with the policy it has. Whether the file behind a name is
there is no matter of the policy: it refuses the requests that need it (`server_tls`), and others go
on. Pure.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import Problem, ProblemCode
from palyra_egress.policy.load import PolicyFiles
from palyra_egress.proxy.tls.server_tls import ServerTlsSettings
from palyra_fleet.nearest_word import nearest
from palyra_fleet.strict_yaml.document import Position

_FLAGS: Final = {
    "roots": "--upstream-roots NAME=PEM",
    "client_certificate": "--client-certificate NAME=CERT,KEY",
}


class ServerTlsGate:
    """A `PolicyGate`; remembers nothing."""

    def __init__(self, settings: ServerTlsSettings) -> None:
        self._known = {
            "roots": frozenset(settings.roots),
            "client_certificate": frozenset(settings.client_certificates),
        }

    def look(self, _paths: Iterable[Path]) -> None:
        """It goes by nothing but the policy and its settings."""

    def refusal(self, _files: PolicyFiles, policy: CompiledPolicy) -> str | None:
        """Every name that stands for nothing here, a line each."""
        found = []
        for rule in policy.spec.rules:
            places = dict(rule.upstream_tls_places)
            for key, name in rule.upstream_tls.named.items():
                if name not in self._known[key]:
                    file, place = rule.file or policy.file, places.get(key, rule.position)
                    found.append(str(self._problem(rule.rule_id, file, place, key, name)))
        return "\n".join(found) or None

    def _problem(self, rule_id: str, file: str, place: Position, key: str, name: str) -> Problem:
        known, flag = self._known[key], _FLAGS[key]
        given = f"one of {', '.join(sorted(known))}" if known else f"it to be set up: {flag}"
        flag = flag.partition(" ")[0]
        what = f"the rule {rule_id!r} has {key} {name!r}, which is not set up here ({flag})"
        code = ProblemCode.UNKNOWN_TLS_NAME
        return Problem(file, place, code, what, given, nearest(name, known))
