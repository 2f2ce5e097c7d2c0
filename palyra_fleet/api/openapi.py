"""The OpenAPI 3.1 document of the fleet API, made from the table of routes. Pure.

Paths, callers, roles, bodies and queries come from the rows, answers from the handlers
(`answers.gives`), schemas from the models, statuses of refusals from the tables of reasons. So the
document can say nothing else than what is served. A handler that does not say what it answers, or a
query parameter without a schema, raises OpenApiIncomplete; the tests make the document, so neither
gets into a release. Source: OpenAPI Specification 3.1.1; JSON Schema 2020-12.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from palyra_fleet.api.answers import REQUEST_ID_HEADER, SEQ_HEADER, Gives, what_gives
from palyra_fleet.api.call import FLAGS
from palyra_fleet.api.callers import Who
from palyra_fleet.api.event_calls import LAST_EVENT_ID, MAX_WAIT_S
from palyra_fleet.api.event_stream import EVENT_STREAM
from palyra_fleet.api.problems import PROBLEM_TYPE, ApiReason
from palyra_fleet.api.routes import ROUTES, Listener, Row, rows_of
from palyra_fleet.identity.records import ClientKind
from palyra_fleet.ledger.worker_filter import ATTESTORS, ELIGIBILITIES, STATES
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.certificate_models import LONGEST_MS, CertificateKind, Standing
from palyra_fleet.wire.ids import NAME_PATTERN, ULID_PATTERN
from palyra_fleet.wire.labels import MAX_LABELS, MAX_WANTED, WANTED_PATTERN
from palyra_fleet.wire.lease_models import LeasesThat
from palyra_fleet.wire.models import Problem
from palyra_fleet.wire.node_models import DeviceState
from palyra_fleet.wire.principal_models import Role

type Json = dict[str, Any]

QUERY: Final[Mapping[str, Json]] = {
    "after_seq": {"type": "integer", "minimum": 0, "default": 0},
    "attestor": {"type": "string", "enum": list(ATTESTORS)},
    "capability": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
    "cursor": {"type": "string", "maxLength": 200, "pattern": "^[A-Za-z0-9_-]+$"},
    "demanded": {"type": "string", "enum": list(FLAGS)},
    "device_id": {"type": "string", "pattern": f"^{ULID_PATTERN}$"},
    "eligibility": {"type": "string", "enum": list(ELIGIBILITIES)},
    "epoch": {"type": "integer", "minimum": 0, "default": 0},
    "expires_within_ms": {"type": "integer", "minimum": 0, "maximum": LONGEST_MS},
    "kind": {"type": "string", "enum": [one.value for one in ClientKind]},
    "label": {
        "type": "array",
        "maxItems": MAX_LABELS,
        "items": {"type": "string", "maxLength": MAX_WANTED, "pattern": f"^{WANTED_PATTERN}$"},
    },
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    "state": {"type": "string", "enum": [one.value for one in LeasesThat], "default": "live"},
    "wait": {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0},
    "wait_ms": {"type": "integer", "minimum": 0, "maximum": 30_000, "default": 0},
    "waits": {"type": "string", "enum": list(FLAGS)},
    "worker_id": {"type": "string", "pattern": f"^{ULID_PATTERN}$"},
}
"""The schema of every query parameter that a row may name."""

HEADERS: Final[Mapping[str, Json]] = {
    LAST_EVENT_ID: {
        "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
        "description": "The number of the last entry that was seen; goes before `after_seq`.",
    },
}
"""Every header that a row may name, besides those that all rows know."""

_ANSWERED: Final[Json] = {
    "request-id": {
        "schema": {"type": "string", "pattern": f"^{ULID_PATTERN}$"},
        "description": "The id of this request: in the events it caused, and in the log.",
    },
    "seq": {
        "schema": {"type": "integer", "minimum": 0},
        "description": "The last entry of the event log that this change wrote, or, where it wrote "
        "none, the last there was. What comes after that number came after the change. Asked again "
        "with the same Idempotency-Key, the answer has the same number.",
    },
}
_REQUEST_ID_ANSWERED: Final[Json] = {REQUEST_ID_HEADER: {"$ref": "#/components/headers/request-id"}}
_CHANGE_ANSWERED: Final[Json] = _REQUEST_ID_ANSWERED | {
    SEQ_HEADER: {"$ref": "#/components/headers/seq"}
}

_OWN_QUERY: Final[Mapping[tuple[str, str], Json]] = {
    ("/v1/workers", "state"): {"type": "string", "enum": list(STATES)},
    ("/v1/devices", "state"): {"type": "string", "enum": [one.value for one in DeviceState]},
    ("/v1/certificates", "state"): {"type": "string", "enum": [one.value for one in Standing]},
    ("/v1/certificates", "kind"): {
        "type": "string",
        "enum": [one.value for one in CertificateKind],
    },
}
"""Where a path has a schema of its own for a parameter that others name, too."""

_REFERENCE: Final = "#/components/schemas/{model}"
_VARIABLE: Final = re.compile(r"\{(\w+)(?::((?:[^{}]|\{[0-9,]+\})+))?\}")
_SCHEMES: Final[Json] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A principal's token, on the admin listener; each operation names a role.",
    },
    "proof": {
        "type": "apiKey",
        "in": "header",
        "name": "Palyra-Proof",
        "description": "A signature of a worker's, proxy's or new key over this very request.",
    },
    "device": {
        "type": "mutualTLS",
        "description": "The certificate of a paired machine, on the listener for other machines.",
    },
}
_ANYBODY: Final = frozenset({400, 404, 408, 413, 500, 503})
_BY_WHO: Final[Mapping[Who, frozenset[int]]] = {
    Who.ANYBODY: _ANYBODY,
    Who.STRANGER: _ANYBODY | {421},
    Who.OPERATOR: _ANYBODY | {401, 403, 409, 421, 429},
    Who.WORKER: _ANYBODY | {401, 403, 409, 429},
    Who.PROXY: _ANYBODY | {401, 403, 409, 429},
    Who.KEY_IN_BODY: _ANYBODY | {401, 403, 409, 429},
    Who.DEVICE: _ANYBODY | {401, 403, 409, 429},
}


class OpenApiIncomplete(Exception):
    """A row says too little to be described."""


def document(version: str, rows: Iterable[Row] = ROUTES) -> Json:
    """The whole document, as JSON values."""
    rows = tuple(rows)
    paths: dict[str, Json] = {}
    for row in rows:
        paths.setdefault(_VARIABLE.sub(r"{\1}", row.path), {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Palyra Fleet",
            "version": version,
            "description": "What workers, proxies and principals may ask of the fleet. Times are "
            "Unix milliseconds. Every refusal is problem+json with a stable `reason`.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": _schemas(rows),
            "securitySchemes": _SCHEMES,
            "responses": {"problem": _problem_response()},
            "headers": _ANSWERED,
        },
    }


@functools.cache
def openapi_bytes(listener: Listener | None = None) -> bytes:
    """The document of this version: of what one listener serves, or of everything."""
    rows = ROUTES if listener is None else rows_of(listener)
    version = metadata.version("palyra-egress-fleet")
    return json.dumps(document(version, rows), indent=1).encode() + b"\n"


def _operation(row: Row) -> Json:
    given = what_gives(row.handler)
    if given is None:
        raise OpenApiIncomplete(f"{row.method} {row.path}: the handler does not say what it gives")
    operation: Json = {
        "operationId": _operation_id(row),
        "summary": _summary(row),
        "tags": [_tag(row)],
        "x-palyra-listeners": sorted(listener.value for listener in row.listeners),
        "responses": _responses(row, given),
    }
    if isinstance(row.allowed, Role):
        operation["security"] = [{"token": []}]
        operation["x-palyra-role"] = row.allowed.value
    elif row.who not in {Who.ANYBODY, Who.STRANGER}:
        scheme = "device" if row.who is Who.DEVICE else "proof"
        operation["security"] = [{scheme: []}]
        operation["x-palyra-caller"] = row.who.value
    if parameters := [*_path_parameters(row), *_query_parameters(row), *_header_parameters(row)]:
        operation["parameters"] = parameters
    if row.body is not None:
        content = {"application/json": {"schema": _ref(row.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(row: Row, given: Gives) -> Json:
    answered = _CHANGE_ANSWERED if row.changes else _REQUEST_ID_ANSWERED
    body: Json = {"description": _describe(given), "headers": answered}
    schema = _ref(given.model) if given.model is not None else given.form
    if schema is not None:
        body["content"] = {given.content_type: {"schema": schema}}
    found = {str(status): body for status in (given.status, *given.also)}
    problem = {"$ref": "#/components/responses/problem"}
    return found | {str(s): problem for s in sorted(problem_statuses(row)) if str(s) not in found}


def problem_statuses(row: Row) -> frozenset[int]:
    """Every status that a refusal of this row's calls may have."""
    statuses = _BY_WHO[row.who]
    known = {reason.http_status for table in (ApiReason, FleetReason) for reason in table}
    if row.body is not None:
        statuses |= {415}
    if row.method == "POST" and row.who not in {Who.ANYBODY, Who.STRANGER}:
        statuses |= {422}
    return statuses & (known | {404})


def _describe(given: Gives) -> str:
    if given.content_type == "application/x-ndjson":
        return "Lines of JSON, until either side goes away."
    if given.content_type == EVENT_STREAM:
        return "Server-sent events, until either side goes away or the token ends."
    return "Done; there is nothing to say." if given.status == 204 else "The answer."


def _problem_response() -> Json:
    return {
        "description": "A refusal (RFC 9457). `reason` is stable, `detail` is for people.",
        "headers": _REQUEST_ID_ANSWERED,
        "content": {PROBLEM_TYPE: {"schema": _ref(Problem)}},
    }


def _path_parameters(row: Row) -> list[Json]:
    found = []
    for name, pattern in _VARIABLE.findall(row.path):
        schema = {"type": "string", "pattern": f"^{pattern}$"} if pattern else {"type": "string"}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    return found


def _query_parameters(row: Row) -> list[Json]:
    if strangers := [name for name in row.query if name not in QUERY]:
        raise OpenApiIncomplete(f"{row.method} {row.path}: no schema for {strangers}")
    schemas = {name: _OWN_QUERY.get((row.path, name), QUERY[name]) for name in row.query}
    return [{"name": name, "in": "query", "schema": schema} for name, schema in schemas.items()]


def _header_parameters(row: Row) -> list[Json]:
    if strangers := [name for name in row.headers if name not in HEADERS]:
        raise OpenApiIncomplete(f"{row.method} {row.path}: no schema for {strangers}")
    return [{"name": name, "in": "header", **HEADERS[name]} for name in row.headers]


def _operation_id(row: Row) -> str:
    """`POST /v1/workers/{worker_id}:ban` is `post_workers_worker_id_ban`."""
    words = re.findall(r"\w+", _VARIABLE.sub(r"\1", row.path).removeprefix("/v1"))
    return "_".join([row.method.lower(), *words])


def _summary(row: Row) -> str:
    words = [word for word in re.split(r"[/:]", _VARIABLE.sub("", row.path)) if word != "v1"]
    return " ".join([row.method, *filter(None, words)]).replace("-", " ")


def _tag(row: Row) -> str:
    if row.who in {Who.ANYBODY, Who.STRANGER}:
        return "about"
    if row.who is not Who.OPERATOR:
        return row.who.value
    return row.path.removeprefix("/v1").split("/")[1].split(":")[0]


def _schemas(rows: Iterable[Row]) -> Json:
    models: dict[type[BaseModel], None] = {Problem: None}
    for row in rows:
        given = what_gives(row.handler)
        for model in (row.body, given.model if given is not None else None):
            if model is not None:
                models[model] = None
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REFERENCE
    )
    schemas: Json = definitions["$defs"]
    return dict(sorted(schemas.items()))


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
