"""Runs schemathesis over an OpenAPI document as one caller, and reads what that caller was told.

The suite tries everything that the coverage phase makes and `EXAMPLES` random calls of each
operation, from one seed; with PALYRA_SCHEMATHESIS_EXAMPLES (`make schemathesis`) so many, from a
seed of chance.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palyra_fleet.api.problems import ApiReason
from palyra_fleet.principals.roles import permits
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.principal_models import Role

NOBODY = "nobody"
CALLERS = (NOBODY, *Role)
LONGER = os.environ.get("PALYRA_SCHEMATHESIS_EXAMPLES")
EXAMPLES = int(LONGER or 3)
TIMEOUT_S = 600 if LONGER is None else 7200
CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
AWAY = {(503, FleetReason.POLICY_PROXY_SILENT)}
"""Of the fleet's 5xx, what these fleets answer rightly: they have no proxy to ask."""
NOT_LET_IN = frozenset(
    {
        ApiReason.TOKEN_REFUSED,
        ApiReason.TOO_MANY_ATTEMPTS,
        ApiReason.SESSION_NEEDED,
        ApiReason.CSRF_REFUSED,
        ApiReason.ROLE_REFUSED,
    }
)
BEFORE_THE_CALLER = frozenset(
    {
        ApiReason.NOT_FOUND,
        ApiReason.METHOD_NOT_ALLOWED,
        ApiReason.REQUEST_INVALID,
        ApiReason.QUERY_INVALID,
    }
)
"""What is refused whoever asks: there is no such route, or the call is bent."""
REPOSITORY = Path(__file__).parents[3]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")

type Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Noted:
    """One answer. `path` is as the document has it; `credentials` says whether the call carried
    those of its caller."""

    method: str
    path: str
    status: int
    reason: str
    credentials: bool


@dataclass(frozen=True, slots=True)
class Tried:
    """Every answer to one caller."""

    caller: str
    document: Json
    answers: tuple[Noted, ...]

    def of_table(self) -> list[tuple[Noted, Role]]:
        """Answers to operations that take a role, with it. Methods that a path does not have are
        tried as well; they have none."""
        roles = {
            (method.upper(), path): Role(operation["x-palyra-role"])
            for path, operations in self.document["paths"].items()
            for method, operation in operations.items()
            if "x-palyra-role" in operation
        }
        return [
            (one, roles[one.method, one.path])
            for one in self.answers
            if (one.method, one.path) in roles
        ]

    def may(self, role: Role) -> bool:
        return self.caller != NOBODY and permits(frozenset({Role(self.caller)}), role)


def own_name(caller: str) -> str:
    """What the principal is called that is this caller."""
    return f"{caller}-1"


async def try_all(
    url: str,
    document: bytes,
    caller: str,
    headers: Mapping[str, str],
    folder: Path,
    *,
    without: Mapping[tuple[str, str], str],
) -> Tried:
    """Every operation of the document but those of `without`, each there with the reason why not.
    Fails on a status, content type or body that the document lacks, and on any 5xx but
    those of `AWAY`."""
    described: Json = json.loads(document)
    for method, path in without:
        assert described["paths"][path].pop(method.lower()), path
    expected = sum(map(len, described["paths"].values()))
    assert expected > 20
    file, notes = folder / "document.json", folder / "notes"
    file.write_text(json.dumps(described))
    given = [part for named in headers.items() for part in ("--header", ": ".join(named))]
    process = await asyncio.create_subprocess_exec(
        *(SCHEMATHESIS, "run", str(file), "--url", url, "--no-color", *given),
        *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"),
        *("--max-examples", str(EXAMPLES), *(("--seed", "1") if LONGER is None else ())),
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SCHEMATHESIS_HOOKS": "tests.fleet.cli.schemathesis_hooks",
            "PALYRA_NOTES": str(notes),
            "PALYRA_OWN_NAME": own_name(caller),
            "PALYRA_CREDENTIALS": json.dumps(dict(headers)),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"as {caller}:\n{said.decode()[-6000:]}"
    assert f"Tested: {expected}" in said.decode(), said.decode()[-3000:]
    answers = tuple(Noted(*json.loads(line)) for line in notes.read_text().splitlines())
    statuses = Counter(one.status for one in answers)
    print(f"as {caller}: {len(answers)} answers, by status {dict(sorted(statuses.items()))}")
    broken = [one for one in answers if one.status >= 500 and (one.status, one.reason) not in AWAY]
    assert not broken, broken[:5]
    return Tried(caller, described, answers)


def assert_no_access_beyond_the_table(tried: Tried, *, refused_as: frozenset[ApiReason]) -> None:
    """Whom the table does not let in is told that, at every operation, and nothing else but that
    the call is bent; whom it lets in is never told so. `refused_as` is how. Without its credentials
    nobody is let in."""
    barred, refused, let_in = set(), set(), set()
    for one, role in tried.of_table():
        operation = (one.method, one.path)
        if not one.credentials:
            assert one.reason in NOT_LET_IN | BEFORE_THE_CALLER, one
        elif tried.may(role):
            assert one.reason not in NOT_LET_IN, one
            let_in.add(operation)
        else:
            assert one.reason in refused_as | BEFORE_THE_CALLER, one
            barred.add(operation)
            if one.reason in refused_as:
                refused.add(operation)
    assert refused == barred
    assert bool(barred) is (tried.caller != Role.ADMIN)
    assert bool(let_in) is (tried.caller != NOBODY)
