"""Writes the pages of docs/reference/ that are made from the code. `make reference` runs it.

tests/project/test_reference.py makes the same pages and compares, so that none goes out of step.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from palyra_egress.cli.parser import make_parser as egress_parser
from palyra_egress.policy.language_page import language_page, table
from palyra_egress.reasons import REASONS, ReasonClass
from palyra_fleet.api.openapi import openapi_bytes
from palyra_fleet.api.problems import ApiReason
from palyra_fleet.api.routes import ROUTES, shape
from palyra_fleet.cli.configuration import EGRESS, FLEET, settings_page
from palyra_fleet.cli.parser import make_parser as fleet_parser
from palyra_fleet.cli.reference_page import help_sections
from palyra_fleet.console.openapi import console_openapi_bytes
from palyra_fleet.console.routes import CONSOLE_ROUTES
from palyra_fleet.identity.refusals import NodeReason
from palyra_fleet.nodes.capability_refusals import CapabilityReason
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.principal_models import Role
from palyra_fleet.worker.environment import TABLE, Value

REASONS_HEAD: Final = """\
# Reasons

Made from the code by `make reference`; not to be edited. A released spelling never changes.

A refusal of the egress proxy carries its reason in the status phrase (`403 Palyra: egress.…`), as
`error` and `details` of `Proxy-Status` (RFC 9209), in a problem+json body, in the audit log and in
`policy explain` and `policy judge`. Policy files name the part after the dot. Only reasons of the
classes policy and threat may cost a worker a strike or its freedom, and only if the policy says so.
"""
CLI_HEAD: Final = """\
# Commands

Made from the code by `make reference`; not to be edited. Every command with its `--help`.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the answer is no, 2 yours to
fix (usage, file, credentials), 69 the server cannot be reached, 70 our fault; `run` passes the
program's own code on. `completion SHELL` prints a script that completes commands and flags:

```sh
palyra-fleet completion bash > ~/.local/share/bash-completion/completions/palyra-fleet
palyra-fleet completion zsh > ~/.zfunc/_palyra-fleet        # a folder of your fpath
palyra-fleet completion fish > ~/.config/fish/completions/palyra-fleet.fish
```
"""
SETTINGS_HEAD: Final = """\
# Settings

Made from the code by `make reference`; not to be edited. What the commands that serve can be told,
by a TOML file (`--config FILE`, or `PALYRA_FLEET_CONFIG` and `PALYRA_EGRESS_CONFIG`), then by
environment, then by flags; the later one holds. A list in the environment has commas between its
parts. An unknown key, a wrong type or a value that the flag would refuse stops the command, and
says file, line and key, or the variable, and what was expected; the value, which may be a secret,
is not repeated. A variable that begins with `PALYRA_FLEET_` (for `palyra-fleet`) or
`PALYRA_EGRESS_` (for `palyra-egress`) and that nothing reads stops it too: a setting that was
misspelt holds for nobody. What Kubernetes adds for a Service of that name is left alone.
`config validate` looks at everything, `config show --origin` says what holds and why.

```toml
[proxy.serve]
listen = "127.0.0.1:8080"
state_dir = "/var/lib/palyra-egress"
forbid = ["192.0.2.7:7741"]
```

Variables of the command line beside these: `PALYRA_HOME`, `PALYRA_FLEET_URL`,
`PALYRA_FLEET_TOKEN_FILE`.
"""
ENVIRONMENT_HEAD: Final = """\
# A worker's environment

Made from the code by `make reference`; not to be edited. What `palyra-egress env` prints, and what
`run` and `worker run` give a program. Inherited proxy settings in any spelling are dropped first.

Each variable is tried alone with the first program of its row, which reaches its server through the
proxy with it and not without it (`tests/e2e/test_env.py`); where that program is not installed the
test says that it was not tried. Of the others the row repeats what they say of themselves.
Variables are for programs that want to: what enforces is [isolation](../isolation.md).
"""
ROLES_HEAD: Final = """\
# Roles

Made from the code by `make reference`; not to be edited. What each role may ask of the admin
listener, besides what a viewer may: an operator and an approver do not include each other, an admin
includes everybody. Which powers these are, in words: [operators](../operators.md).
"""
CLASSES: Final[Mapping[ReasonClass, str]] = {
    ReasonClass.ALLOWED: "Allowed",
    ReasonClass.POLICY: "The policy does not give this (class policy)",
    ReasonClass.THREAT: "What looks like an attack (class threat)",
    ReasonClass.CLIENT: "The request itself is wrong (class client)",
    ReasonClass.INFRA: "Our side, or the way there (class infra)",
}
MEANINGS: Final[Mapping[Value, str]] = {
    Value.PROXY_URL: "the proxy's address, with the lease's credential",
    Value.ANY_PROXY_URL: "the same",
    Value.NOTHING: "nothing: no host goes around the proxy",
    Value.COMBINED_BUNDLE: "the public roots and our CA, in one file",
    Value.PALYRA_CA: "our CA alone, which the reader adds to its own roots",
    Value.YES: "`1`",
}
FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"


def _fleet_rows(reasons: Iterable[FleetReason | ApiReason]) -> Iterable[tuple[str, ...]]:
    return ((f"`{one}`", str(one.http_status), one.heading) for one in reasons)


def reasons_page() -> bytes:
    """Every reason of proxy and fleet, from their tables."""
    lines = [REASONS_HEAD.rstrip("\n")]
    for reason_class, title in CLASSES.items():
        lines.append(f"\n## {title}\n")
        rows = [
            (f"`{reason}`", str(row.http_status), row.proxy_status_error or "", row.title, row.hint)
            for reason, row in REASONS.items()
            if row.reason_class is reason_class
        ]
        lines += table(("reason", "HTTP", "Proxy-Status error", "meaning", "told to people"), rows)
    lines.append("\n## The fleet\n")
    lines += table(("reason", "HTTP", "meaning"), _fleet_rows([*FleetReason, *ApiReason]))
    lines.append("\n## Nodes\n")
    nodes = [(f"`{one}`", one.status.value, one.template) for one in NodeReason]
    nodes += [(f"`{one}`", one.status, one.text) for one in CapabilityReason]
    lines += table(("reason", "gRPC", "text"), nodes)
    return ("\n".join(lines) + "\n").encode()


def cli_page() -> bytes:
    """Every command of both programs."""
    sections = help_sections([egress_parser(), fleet_parser()])
    return "\n".join([CLI_HEAD, *sections]).encode()


def settings_reference() -> bytes:
    """What can be set, of both programs."""
    sections = settings_page([(EGRESS, egress_parser()), (FLEET, fleet_parser())])
    return "\n".join([SETTINGS_HEAD, *sections]).encode()


def environment_page() -> bytes:
    """Every variable that a worker's program gets."""
    rows = [
        (f"`{row.name}`", MEANINGS[row.value], row.readers[0], ", ".join(row.readers[1:]))
        for row in TABLE
    ]
    head = ("variable", "set to", "tried with", "read by as well")
    return "\n".join([ENVIRONMENT_HEAD, *table(head, rows), ""]).encode()


def roles_page() -> bytes:
    """Every route of principals, under the role that it takes."""
    lines = [ROLES_HEAD.rstrip("\n")]
    for role in Role:
        lines.append(f"\n## {role}\n")
        asks = sorted((shape(row.path), row.method) for row in ROUTES if row.allowed is role)
        lines += [f"- `{method} {path}`" for path, method in asks]
    return ("\n".join(lines) + "\n").encode()


PAGES: Final[Mapping[str, Callable[[], bytes]]] = {
    "cli.md": cli_page,
    "environment.md": environment_page,
    "openapi.json": openapi_bytes,
    "console-openapi.json": lambda: console_openapi_bytes(CONSOLE_ROUTES),
    "policy-language.md": language_page,
    "reasons.md": reasons_page,
    "roles.md": roles_page,
    "settings.md": settings_reference,
}
"""What each page holds."""


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_bytes(make())


if __name__ == "__main__":
    main()
