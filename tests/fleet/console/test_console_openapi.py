"""The document of the console's JSON routes is whole: every route, every role, every schema."""

import json

from jsonschema.validators import Draft202012Validator

from palyra_fleet.console.openapi import JSON_BELOW, console_document
from palyra_fleet.console.routes import CONSOLE_ROUTES

WHOLE = console_document("1", CONSOLE_ROUTES)
ROWS = tuple(row for row in CONSOLE_ROUTES if row.path.startswith(JSON_BELOW))


def test_every_json_route_is_one_operation_with_its_role() -> None:
    operations = [one for path in WHOLE["paths"].values() for one in path.values()]
    assert len(operations) == len(ROWS)
    assert len({one["operationId"] for one in operations}) == len(ROWS)
    told = sorted(one["x-palyra-role"] for one in operations if "x-palyra-role" in one)
    assert told == sorted(row.role.value for row in ROWS if row.role is not None)


def test_a_change_takes_the_cookie_and_the_pages_token() -> None:
    for path, operations in WHOLE["paths"].items():
        for method, operation in operations.items():
            if path.endswith("/auth/login"):
                assert "security" not in operation
            elif method == "get":
                assert operation["security"] == [{"session": []}]
            else:
                assert operation["security"] == [{"session": [], "csrf": []}]


def test_every_schema_is_one_and_every_answer_is_under_the_contract() -> None:
    schemas = WHOLE["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    named = {part.split('"')[0] for part in json.dumps(WHOLE).split("#/components/schemas/")[1:]}
    assert named <= set(schemas)
    envelopes = {name for name in schemas if name.endswith(("Envelope", "Page"))}
    assert len(envelopes) > 10
    assert all("contract" in schemas[name]["required"] for name in envelopes)
