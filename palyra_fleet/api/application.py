"""Makes the aiohttp applications, one per listener, out of the one table of routes.

In the order a request meets it: errors become problems, the admin listener checks the Host header
(a web page that rebinds its name to loopback does not know ours), then per row the `Gatekeeper`:
device, query, caller, body, handler. Faults of our own become a 500 without detail; the log gets
type and place, never values. Long calls (orders, views) end with the application.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler
from aiohttp.typedefs import Middleware
from ulid import ULID

from palyra_fleet.api.answers import REQUEST_ID_HEADER
from palyra_fleet.api.call import MAX_BODY_BYTES
from palyra_fleet.api.callers import ProofGate, TokenGate
from palyra_fleet.api.describe_calls import DOCUMENT
from palyra_fleet.api.devices import DeviceGate
from palyra_fleet.api.event_stream import STREAMING
from palyra_fleet.api.gatekeeper import Gatekeeper, only
from palyra_fleet.api.openapi import openapi_bytes
from palyra_fleet.api.problems import (
    REASON,
    ApiReason,
    ApiRefusal,
    problem_of_api,
    problem_of_fleet,
    problem_of_http,
    problem_of_node,
)
from palyra_fleet.api.protocol import SECURITY_HEADERS
from palyra_fleet.api.refusal_log import RefusalLog
from palyra_fleet.api.routes import ROUTES, Listener, RouteTableError, refuse_strays, rows_of
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.console.application import PREFIX as CONSOLE_PREFIX
from palyra_fleet.console.application import make_console
from palyra_fleet.identity.refusals import NodeReason, NodeRefused, refuse
from palyra_fleet.issuers.keeper import IssuerKeys
from palyra_fleet.logs.faults import fault_of
from palyra_fleet.logs.fields import Field, told, within
from palyra_fleet.nodes.capability_refusals import CapabilityRefused
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.principals.book import PrincipalBook
from palyra_fleet.principals.desk import PrincipalDesk
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.service.origin import REQUEST_ID
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.traces.calls import follow
from palyra_fleet.traces.spans import Attribute, Spans, Value

_log = logging.getLogger(__name__)

_REFUSALS: Final = 400
_PAGES_OWN: Final = ("Content-Security-Policy", "Cache-Control")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Bounds of the HTTP layer. `admin_hosts` are the names the admin listener answers to."""

    principals: PrincipalBook
    issuers: IssuerKeys | None = None
    """Believes the tokens of other services, where the settings name issuers."""
    admin_hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    spans: Spans | None = None
    """Where calls are told as spans."""
    body_within_ms: int = 10_000
    view_write_within_ms: int = 5_000


def make_application(
    listener: Listener,
    service: FleetService,
    settings: ApiSettings,
    clock: Callable[[], int] = now_unix_ms,
    nodes: NodeOperations | None = None,
    devices: DeviceGate | None = None,
    proofs: ProofGate | None = None,
) -> web.Application:
    """The application of one listener. Raises RouteTableError if it is not exactly the table.

    `devices` belongs to the listener for other machines and must be there. `proofs` is shared by
    the listeners, so that a proof is spent on all of them at once.
    """
    if (listener is Listener.REMOTE) != (devices is not None):
        raise RouteTableError("the listener for other machines, and no other, asks for a device")
    keeper = Gatekeeper(
        service=service,
        body_within_ms=settings.body_within_ms,
        view_write_within_ms=settings.view_write_within_ms,
        clock=clock,
        tokens=TokenGate(settings.principals, settings.issuers),
        proofs=proofs or ProofGate(service.caller_by_key),
        nodes=nodes,
        principals=PrincipalDesk(
            settings.principals, service.record_event, service.void_releases_of, clock
        ),
        devices=devices,
    )
    refusals = RefusalLog()
    middlewares: list[Middleware] = [_number_requests(refusals), _answer_with_problems]
    if settings.spans is not None:
        middlewares.insert(0, _trace(settings.spans))
    if listener is Listener.ADMIN:
        middlewares.append(_check_host(settings.admin_hosts))
    if listener is Listener.REMOTE:
        middlewares.append(_know_device(keeper))
    application = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    rows = rows_of(listener, ROUTES)
    for row in rows:
        application.router.add_route(row.method, row.path, keeper.serve(row))
    application[DOCUMENT] = openapi_bytes(listener)
    application.on_response_prepare.append(_add_security_headers)
    application.on_shutdown.append(keeper.end_long_calls)
    application.on_cleanup.append(refusals.close)
    refuse_strays(application, rows)
    if listener is Listener.ADMIN:
        console = make_console(
            service, nodes, settings.principals, keeper.tokens, clock, keeper.owed
        )
        application.add_subapp(CONSOLE_PREFIX, console)
    return application


def _trace(spans: Spans) -> Middleware:
    @web.middleware
    async def trace(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        call, answer = follow(spans, request, _route(request)), None
        try:
            answer = await handler(request)
        finally:
            told: dict[Attribute, Value | None] = {
                Attribute.REQUEST_ID: request.get(REQUEST_ID),
                Attribute.CLIENT: request.remote or None,
                Attribute.REASON: None if answer is None else answer.get(REASON),
            }
            call.end(None if answer is None else answer.status, told)
        return answer

    return trace


def _number_requests(refusals: RefusalLog) -> Middleware:
    """Each request has an id: its answer carries it, the events it causes, and all that is logged
    meanwhile. A refusal is a line of its own, as long as there are not too many."""

    @web.middleware
    async def number(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        request_id = str(ULID())
        request[REQUEST_ID] = request_id
        with within({Field.REQUEST_ID: request_id}):
            answer = await handler(request)
            if answer.status >= _REFUSALS:
                refusals.refused(request, answer, _route(request))
        return answer

    return number


@web.middleware
async def _answer_with_problems(
    request: web.Request, handler: AiohttpHandler
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiRefusal as refusal:
        return problem_of_api(refusal)
    except FleetRefusal as refusal:
        return problem_of_fleet(refusal)
    except (NodeRefused, CapabilityRefused) as refused:
        return problem_of_node(refused)
    except StoreFailed:
        return problem_of_node(NodeRefused(refuse(NodeReason.STORE_UNAVAILABLE)))
    except web.HTTPException as error:
        return problem_of_http(error)
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 (outer edge: a fault becomes a 500 and a log line)
        _log_fault(request, error)
        if request.get(STREAMING, False):
            raise ConnectionResetError("the stream broke off") from None
        return problem_of_api(ApiRefusal(ApiReason.INTERNAL))


def _know_device(keeper: Gatekeeper) -> Middleware:
    @web.middleware
    async def know_device(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        await keeper.know_device(request)
        return await handler(request)

    return know_device


def _check_host(allowed: frozenset[str]) -> Middleware:
    @web.middleware
    async def check_host(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        if host_name(only(request, "Host") or "") not in allowed:
            raise ApiRefusal(ApiReason.HOST_REFUSED)
        return await handler(request)

    return check_host


def host_name(header: str) -> str:
    """The name or address in a Host header, lower case, without port and brackets; else ""."""
    name, colon, port = header.lower().rpartition(":")
    if header.startswith("[") and header.endswith("]"):
        return header[1:-1].lower()
    if not colon:
        return header.lower()
    if not port.isascii() or not port.isdigit():
        return ""
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1]
    return "" if ":" in name else name


async def _add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    own = {name: response.headers[name] for name in _PAGES_OWN if name in response.headers}
    response.headers.update(SECURITY_HEADERS | own)
    response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]


def _route(request: web.Request) -> str:
    """The route as its table spells it, empty for none; the path itself is the caller's."""
    route = request.match_info.route.resource
    return "" if route is None else route.canonical


def _log_fault(request: web.Request, error: Exception) -> None:
    """Type and code places only: an error's text may hold what the caller sent."""
    method, route = request.method, _route(request) or "?"
    extra = told({Field.METHOD: method, Field.ROUTE: route})
    _log.error("%s %s failed: %s", method, route, fault_of(error), extra=extra)
