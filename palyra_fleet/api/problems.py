"""Refusals of the HTTP layer itself, and every refusal as RFC 9457 problem+json.

Refusals of the fleet have their own table (`palyra_fleet.refusals`); this one holds what can be
wrong with a request before the fleet is asked. A problem never repeats what the caller sent: a
body that does not fit its model is described by the places that are wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from aiohttp import web
from pydantic import ValidationError

from palyra_fleet.identity.refusals import NodeRefusal, NodeRefused
from palyra_fleet.nodes.capability_refusals import CapabilityRefused
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.wire.models import Problem

PROBLEM_TYPE: Final = "application/problem+json"
MAX_PLACES: Final = 8
REASON: Final = web.ResponseKey("palyra-reason", str)
"""Where an answer keeps its reason, for the log."""


class ApiReason(StrEnum):
    """Stable reason codes of the HTTP layer. Each has exactly one row in `_TABLE`."""

    HOST_REFUSED = "api.host_refused"
    TOKEN_REFUSED = "api.token_refused"  # noqa: S105 (a reason code)
    TOO_MANY_ATTEMPTS = "api.too_many_attempts"
    ROLE_REFUSED = "api.role_refused"
    SESSION_NEEDED = "console.session_needed"
    CSRF_REFUSED = "console.csrf_refused"
    PROOF_REFUSED = "api.proof_refused"
    CALLER_NOT_ALLOWED = "api.caller_not_allowed"
    OTHER_DEVICE = "api.other_device"
    TOO_FAST = "api.too_fast"
    KEY_REUSED = "api.idempotency_key_reused"
    TOO_MANY_CALLS = "api.too_many_calls"
    PLACES_TAKEN = "api.places_taken"
    AHEAD_OF_LOG = "api.ahead_of_log"
    NOT_FOUND = "api.not_found"
    METHOD_NOT_ALLOWED = "api.method_not_allowed"
    REQUEST_INVALID = "api.request_invalid"
    QUERY_INVALID = "api.query_invalid"
    BODY_INVALID = "api.body_invalid"
    BODY_LATE = "api.body_late"
    BODY_TOO_LARGE = "api.body_too_large"
    CONTENT_TYPE = "api.content_type"
    NODES_OFF = "node.not_served"
    INTERNAL = "api.internal"

    @property
    def heading(self) -> str:
        return _TABLE[self][0]

    @property
    def http_status(self) -> int:
        return _TABLE[self][1]


_TABLE: Final[Mapping[ApiReason, tuple[str, int]]] = {
    ApiReason.HOST_REFUSED: ("The Host header does not name this listener", 421),
    ApiReason.TOKEN_REFUSED: ("A valid operator token is needed", 401),
    ApiReason.TOO_MANY_ATTEMPTS: ("Too many wrong tokens", 429),
    ApiReason.ROLE_REFUSED: ("This principal's roles do not permit this", 403),
    ApiReason.SESSION_NEEDED: ("Nobody is signed in, or no longer", 401),
    ApiReason.CSRF_REFUSED: ("The change does not come from a page of this console", 403),
    ApiReason.PROOF_REFUSED: ("A valid proof of a known key is needed", 401),
    ApiReason.CALLER_NOT_ALLOWED: ("This caller may not do this", 403),
    ApiReason.OTHER_DEVICE: ("This key does not belong to the device that calls", 403),
    ApiReason.TOO_FAST: ("This caller calls too often", 429),
    ApiReason.KEY_REUSED: ("The idempotency key was used for another request", 422),
    ApiReason.TOO_MANY_CALLS: ("This caller has too many calls waiting", 429),
    ApiReason.PLACES_TAKEN: ("As many calls wait or stream as may", 503),
    ApiReason.AHEAD_OF_LOG: ("The event log does not reach that far", 409),
    ApiReason.NOT_FOUND: ("No such resource", 404),
    ApiReason.METHOD_NOT_ALLOWED: ("The method does not apply here", 405),
    ApiReason.REQUEST_INVALID: ("The request is not valid HTTP", 400),
    ApiReason.QUERY_INVALID: ("The query is not valid", 400),
    ApiReason.BODY_INVALID: ("The body is not valid", 400),
    ApiReason.BODY_LATE: ("The body did not arrive in time", 408),
    ApiReason.BODY_TOO_LARGE: ("The body is too large", 413),
    ApiReason.CONTENT_TYPE: ("The body must be application/json", 415),
    ApiReason.NODES_OFF: ("This fleet serves no nodes; start it with --nodes", 404),
    ApiReason.INTERNAL: ("The fleet made a mistake", 500),
}


class ApiRefusal(Exception):
    """A refusal of the HTTP layer on its way out. `detail` is for people."""

    def __init__(self, reason: ApiReason, detail: str = "", headers: "Headers | None" = None):
        super().__init__(detail or reason.heading)
        self.reason = reason
        self.detail = detail or reason.heading
        self.headers = headers or Headers()


@dataclass(frozen=True, slots=True)
class Headers:
    """Extra headers of a problem answer."""

    values: Mapping[str, str] = field(default_factory=dict)


def problem_of_api(refusal: ApiRefusal) -> web.Response:
    reason = refusal.reason
    return _answer(
        reason.http_status, reason.value, reason.heading, refusal.detail, refusal.headers.values
    )


def problem_of_fleet(refusal: FleetRefusal) -> web.Response:
    reason = refusal.reason
    return _answer(reason.http_status, reason.value, reason.heading, refusal.text, {})


def problem_of_node(refused: NodeRefused | CapabilityRefused) -> web.Response:
    refusal, reason = refused.refusal, refused.refusal.reason
    status = (
        refusal.status.http_status
        if isinstance(refusal, NodeRefusal)
        else refusal.reason.http_status
    )
    return _answer(status, reason.value, "The nodes' service refused", refusal.text, {})


def problem_of_http(error: web.HTTPException) -> web.Response:
    """What aiohttp itself refuses, in our words."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return problem_of_api(
            ApiRefusal(ApiReason.METHOD_NOT_ALLOWED, headers=Headers({"Allow": allow}))
        )
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return problem_of_api(ApiRefusal(ApiReason.BODY_TOO_LARGE))
    if isinstance(error, web.HTTPNotFound):
        return problem_of_api(ApiRefusal(ApiReason.NOT_FOUND))
    if error.status >= 500:
        return problem_of_api(ApiRefusal(ApiReason.INTERNAL))
    return problem_of_api(ApiRefusal(ApiReason.REQUEST_INVALID))


def places_that_are_wrong(error: ValidationError) -> str:
    """Field paths and what was expected there, without any value the caller sent.

    A field the model does not know is the caller's own text, so it is not named either.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [_place(item["loc"], item["type"]) for item in found[:MAX_PLACES]]
    more = f"; and {len(found) - MAX_PLACES} more" if len(found) > MAX_PLACES else ""
    return "; ".join(places) + more


def _place(location: tuple[int | str, ...], kind: str) -> str:
    known = location[:-1] if kind == "extra_forbidden" else location
    where = ".".join(map(str, known)) or "body"
    return f"{where}: {kind}"


def _answer(
    status: int, reason: str, title: str, detail: str, headers: Mapping[str, str]
) -> web.Response:
    problem = Problem(title=title, status=status, detail=detail, reason=reason)
    answer = web.Response(
        status=status,
        body=problem.model_dump_json().encode(),
        content_type=PROBLEM_TYPE,
        headers=headers,
    )
    answer[REASON] = reason
    return answer
