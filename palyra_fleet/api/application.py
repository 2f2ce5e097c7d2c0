"""Makes the two aiohttp applications, one per listener, out of the one table of routes.

In the order a request meets it: errors become problems, the admin listener checks the Host header
(a web page that rebinds its name to loopback does not know ours), then per row: query, caller,
body, handler. Faults of our own become a 500 without detail; the log gets type and place, never
values. Long calls (orders, views) are cancelled when the application shuts down.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler
from aiohttp.typedefs import Middleware
from pydantic import BaseModel
from ulid import ULID

from palyra_fleet.api.call import MAX_BODY_BYTES, Call, parse_body, read_body, read_query
from palyra_fleet.api.callers import NOBODY, Identity, ProofGate, SignedRequest, TokenGate, Who
from palyra_fleet.api.describe_calls import DOCUMENT
from palyra_fleet.api.openapi import openapi_bytes
from palyra_fleet.api.problems import (
    ApiReason,
    ApiRefusal,
    Headers,
    problem_of_api,
    problem_of_fleet,
    problem_of_http,
    problem_of_node,
)
from palyra_fleet.api.protocol import SECURITY_HEADERS
from palyra_fleet.api.proxy_calls import STREAMING
from palyra_fleet.api.routes import ROUTES, Listener, Row, refuse_strays, rows_of
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.refusals import NodeReason, NodeRefused, refuse
from palyra_fleet.nodes.capability_refusals import CapabilityRefused
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.origin import ORIGIN, Origin
from palyra_fleet.principals.book import PrincipalBook
from palyra_fleet.principals.desk import PrincipalDesk
from palyra_fleet.principals.roles import permits
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.service import FleetService
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.wire.principal_models import Role
from palyra_fleet.wire.request_proof import HEADER as PROOF_HEADER

_log = logging.getLogger(__name__)

MAX_LONG_CALLS_PER_CALLER: Final = 4
REQUEST_ID: Final = web.RequestKey("palyra-request-id", str)
REQUEST_ID_HEADER: Final = "Palyra-Request-Id"


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Bounds of the HTTP layer. `admin_hosts` are the names the admin listener answers to."""

    principals: PrincipalBook
    admin_hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    body_within_ms: int = 10_000
    view_write_within_ms: int = 5_000


@dataclass(slots=True)
class _Gatekeeper:
    """Takes a request through query, caller and body to its row's handler."""

    service: FleetService
    settings: ApiSettings
    clock: Callable[[], int]
    tokens: TokenGate
    proofs: ProofGate
    nodes: NodeOperations | None
    principals: PrincipalDesk
    long_calls: dict[Identity, set[asyncio.Task[Any]]] = field(default_factory=dict)

    def serve(self, row: Row) -> AiohttpHandler:
        async def handler(request: web.Request) -> web.StreamResponse:
            query = read_query(request, row.query)
            identity, body = await self._admit(row, request)
            call = Call(
                service=self.service,
                operations=self.nodes,
                principals=self.principals,
                identity=identity,
                request=request,
                query=query,
                body=body,
                write_timeout_ms=self.settings.view_write_within_ms,
            )
            if not row.streams:
                return await row.handler(call)
            with self._long_call(identity):
                return await row.handler(call)

        return handler

    async def _admit(self, row: Row, request: web.Request) -> tuple[Identity, bytes]:
        """Who calls, and the body. Operators are known before their body is read."""
        match row.who:
            case Who.ANYBODY | Who.STRANGER:
                return NOBODY, await self._body(row, request)
            case Who.OPERATOR:
                operator = self.tokens.operator(
                    _only(request, "Authorization"), request.remote or "", self.clock()
                )
                if isinstance(row.allowed, Role) and not permits(operator.roles, row.allowed):
                    raise ApiRefusal(ApiReason.ROLE_REFUSED, f"it takes the role {row.allowed}")
                ORIGIN.set(Origin(request.remote or "", request[REQUEST_ID]))
                return operator, await self._body(row, request)
            case Who.WORKER | Who.PROXY | Who.KEY_IN_BODY:
                return await self._admit_by_proof(row, request)
            case _:
                assert_never(row.who)

    async def _admit_by_proof(self, row: Row, request: web.Request) -> tuple[Identity, bytes]:
        proof = self.proofs.well_formed(_only(request, PROOF_HEADER))
        body = await self._body(row, request)
        signed = SignedRequest(request.method, request.raw_path, body)
        if row.who is not Who.KEY_IN_BODY:
            return self.proofs.known_caller(proof, signed, row.who, self.clock()), body
        key = getattr(parse_body(row.body or BaseModel, body), "public_key", "")
        return self.proofs.holder_of(key, proof, signed, self.clock()), body

    async def _body(self, row: Row, request: web.Request) -> bytes:
        return await read_body(
            request, wanted=row.body is not None, within_ms=self.settings.body_within_ms
        )

    @contextmanager
    def _long_call(self, identity: Identity) -> Iterator[None]:
        """One waiting call of a caller: bounded in number, and ended with the application."""
        own = self.long_calls.setdefault(identity, set())
        task = asyncio.current_task()
        if task is None or len(own) >= MAX_LONG_CALLS_PER_CALLER:
            raise ApiRefusal(ApiReason.TOO_MANY_CALLS, headers=Headers({"Retry-After": "1"}))
        own.add(task)
        try:
            yield
        finally:
            own.discard(task)
            if not own:
                self.long_calls.pop(identity, None)

    async def end_long_calls(self, application: web.Application) -> None:
        del application
        for task in [one for own in self.long_calls.values() for one in own]:
            task.cancel()


def make_application(
    listener: Listener,
    service: FleetService,
    settings: ApiSettings,
    clock: Callable[[], int] = now_unix_ms,
    nodes: NodeOperations | None = None,
) -> web.Application:
    """The application of one listener. Raises RouteTableError if it is not exactly the table."""
    keeper = _Gatekeeper(
        service,
        settings,
        clock,
        TokenGate(settings.principals),
        ProofGate(service.caller_by_key),
        nodes,
        PrincipalDesk(settings.principals, service.record_event, clock),
    )
    middlewares: list[Middleware] = [_number_requests, _answer_with_problems]
    if listener is Listener.ADMIN:
        middlewares.append(_check_host(settings.admin_hosts))
    application = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    rows = rows_of(listener, ROUTES)
    for row in rows:
        application.router.add_route(row.method, row.path, keeper.serve(row))
    application[DOCUMENT] = openapi_bytes(listener)
    application.on_response_prepare.append(_add_security_headers)
    application.on_shutdown.append(keeper.end_long_calls)
    refuse_strays(application, rows)
    return application


@web.middleware
async def _number_requests(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
    """Each request has an id, which its answer carries, and the events it causes."""
    request[REQUEST_ID] = str(ULID())
    return await handler(request)


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


def _check_host(allowed: frozenset[str]) -> Middleware:
    @web.middleware
    async def check_host(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        if host_name(_only(request, "Host") or "") not in allowed:
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


def _only(request: web.Request, header: str) -> str | None:
    """A header that is there exactly once, else None."""
    values = request.headers.getall(header, [])
    return values[0] if len(values) == 1 else None


async def _add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)
    response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]


def _log_fault(request: web.Request, error: Exception) -> None:
    """Type and code places only: an error's text may hold what the caller sent."""
    route = request.match_info.route.resource
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error(
        "%s %s failed: %s\n%s",
        request.method,
        route.canonical if route is not None else "?",
        type(error).__name__,
        where,
    )
