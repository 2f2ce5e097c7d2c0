"""The OpenAPI document is whole: every route, every role, every schema."""

import json

import pytest
from jsonschema.validators import Draft202012Validator

from palyra_fleet.api.callers import Who
from palyra_fleet.api.health_calls import live
from palyra_fleet.api.openapi import OpenApiIncomplete, document, openapi_bytes
from palyra_fleet.api.routes import ROUTES, Listener, Row, rows_of
from palyra_fleet.wire.principal_models import Role
from tests.fakes.raw_http import ask
from tests.fakes.served_fleet import ServedFleet

WHOLE = document("1")


def test_every_row_is_one_operation_with_its_caller_and_role() -> None:
    operations = [one for path in WHOLE["paths"].values() for one in path.values()]
    assert len(operations) == len(ROUTES)
    assert len({one["operationId"] for one in operations}) == len(ROUTES)
    roles = [one.get("x-palyra-role") for one in operations]
    for role in Role:
        assert roles.count(role) == sum(row.allowed is role for row in ROUTES)
    open_to_all = [one for one in operations if "security" not in one]
    assert len(open_to_all) == sum(row.who in {Who.ANYBODY, Who.STRANGER} for row in ROUTES)


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    schemas = WHOLE["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(WHOLE)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(schemas)


async def unsaid(call: object) -> None:
    """A handler that does not say what it gives."""


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (Row("GET", "/x", Who.ANYBODY, unsaid), "does not say"),  # type: ignore[arg-type]
        (Row("GET", "/x", Who.ANYBODY, live, query=("odd",)), "odd"),
    ],
)
def test_a_row_that_says_too_little_is_not_described(row: Row, what: str) -> None:
    with pytest.raises(OpenApiIncomplete, match=what):
        document("1", (row,))


async def test_the_admin_listener_describes_what_it_serves(fleet: ServedFleet) -> None:
    answer = await ask(fleet.admin_url, "GET", "/openapi.json")
    assert answer.body == openapi_bytes(Listener.ADMIN)
    served = json.loads(answer.body)
    assert sum(map(len, served["paths"].values())) == len(rows_of(Listener.ADMIN))
