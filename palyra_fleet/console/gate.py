"""Takes a request of the console to its handler: session, role, CSRF token, body, in this order.

`ConsoleRow` is one line of the console's table. A page without a session leads to the sign-in page;
everything else without one is refused. A change takes the session's token in a header and, where
the browser says where it comes from, our own origin. Roles are those of the principal who signed
in, looked up again for every request, and once more when its body is here.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler
from pydantic import BaseModel

from palyra_fleet.api.call import parse_body, read_body, read_number, read_query
from palyra_fleet.api.callers import Identity, SignedRequest, TokenGate, Who
from palyra_fleet.api.changes import Change, changed, is_change
from palyra_fleet.api.gatekeeper import only, origin_of
from palyra_fleet.api.long_calls import LongCalls
from palyra_fleet.api.once import HEADER as ONCE_HEADER
from palyra_fleet.api.once import OnceOnly
from palyra_fleet.api.owed_entries import OwedEntries
from palyra_fleet.api.paging import DEFAULT_ROWS, MAX_ROWS, ListOf, read_cursor
from palyra_fleet.api.problems import ApiReason, ApiRefusal
from palyra_fleet.console.sessions import ConsoleSession, ConsoleSessions
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.principals.roles import permits
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.service.origin import ORIGIN
from palyra_fleet.wire.principal_models import Role

COOKIE: Final = "palyra_console_session"
CSRF_HEADER: Final = "x-palyra-csrf-token"
PREFIX: Final = "/console"
LOGIN_PATH: Final = f"{PREFIX}/login"
MAX_STREAMS: Final = 8
"""How many live pages one principal has."""
MAX_STREAMS_IN_ALL: Final = 64
KEPT_FOR_ADMINS: Final = 16
"""Of all: so that no number of others keeps two admins from seeing what goes on."""
_BODY_WITHIN_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class ConsoleDesk:
    """What the console's handlers work with. `operations` is None where no nodes are served."""

    service: FleetService
    operations: NodeOperations | None
    sessions: ConsoleSessions
    tokens: TokenGate
    clock: Callable[[], int]
    described: bytes = b""
    """The OpenAPI document of the JSON routes."""
    streams: LongCalls = field(
        default_factory=lambda: LongCalls(MAX_STREAMS, MAX_STREAMS_IN_ALL, KEPT_FOR_ADMINS)
    )
    once: OnceOnly = field(default_factory=OnceOnly)
    owed: OwedEntries = field(default_factory=OwedEntries)

    @property
    def nodes(self) -> NodeOperations:
        if self.operations is None:
            raise ApiRefusal(ApiReason.NODES_OFF)
        return self.operations


@dataclass(frozen=True, slots=True)
class ConsoleCall:
    """One request that was let in. `session` is None only on rows without a role."""

    desk: ConsoleDesk
    request: web.Request
    query: Mapping[str, str]
    body: bytes
    session: ConsoleSession | None

    @property
    def signed_in(self) -> ConsoleSession:
        if self.session is None:
            raise ApiRefusal(ApiReason.SESSION_NEEDED)
        return self.session

    @property
    def actor(self) -> str:
        """The name that events carry."""
        return self.signed_in.principal.name

    def part(self, name: str) -> str:
        return self.request.match_info[name]

    def cursor(self, list_of: ListOf, name: str = "cursor") -> str | None:
        """What the page that is asked for begins after; None for the first. A page with several
        lists has a parameter for each."""
        return read_cursor(list_of, self.query.get(name), name)

    def limit(self) -> int:
        return read_number(self.query, "limit", default=DEFAULT_ROWS, least=1, most=MAX_ROWS)

    def read[Model: BaseModel](self, model: type[Model]) -> Model:
        return parse_body(model, self.body)

    def may(self, role: Role) -> bool:
        return self.session is not None and permits(self.session.principal.roles, role)


type ConsoleHandler = Callable[[ConsoleCall], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class ConsoleRow:
    """One route of the console, below `/console`. `role` None: no session is needed. `draws`: it
    only makes a picture of what it is given."""

    method: str
    path: str
    role: Role | None
    handler: ConsoleHandler
    body: type[BaseModel] | None = None
    query: tuple[str, ...] = ()
    page: bool = False
    draws: bool = False

    @property
    def changes(self) -> bool:
        return is_change(self.method, self.role) and not self.draws


def serve(desk: ConsoleDesk, row: ConsoleRow) -> AiohttpHandler:
    """The aiohttp handler of a row."""

    async def handler(request: web.Request) -> web.StreamResponse:
        query = read_query(request, row.query)
        session = _session(desk, request)
        if row.role is not None:
            if session is None and row.page:
                return _to_login(request)
            _admit(row, request, session, row.role)
        elif row.method != "GET":
            _check_origin(request)
        body = await read_body(request, wanted=row.body is not None, within_ms=_BODY_WITHIN_MS)
        if row.role is not None and _session(desk, request) is not session:
            raise ApiRefusal(ApiReason.SESSION_NEEDED)  # it ended while the body came
        return await _answer(row, ConsoleCall(desk, request, query, body, session))

    return handler


async def _answer(row: ConsoleRow, call: ConsoleCall) -> web.StreamResponse:
    """What the handler says; a change with an idempotency key is made once for its principal."""

    async def work() -> web.StreamResponse:
        if not row.changes:
            return await row.handler(call)
        made = Change(row.handler, call.actor, call.request.match_info, row.body, call.body)
        desk = call.desk
        return await changed(desk.service, lambda: row.handler(call), made, desk.owed)

    given = only(call.request, ONCE_HEADER)
    if given is None or row.body is None or call.session is None:
        return await work()
    identity = Identity(Who.OPERATOR, call.actor)
    request = SignedRequest(row.method, call.request.raw_path, call.body)
    now = call.desk.clock()
    return await call.desk.once.answer(identity, given, request, work, now)


def _session(desk: ConsoleDesk, request: web.Request) -> ConsoleSession | None:
    return desk.sessions.find(request.cookies.get(COOKIE), desk.clock())


def _to_login(request: web.Request) -> web.Response:
    wanted = quote(request.path_qs, safe="")
    return web.Response(status=303, headers={"Location": f"{LOGIN_PATH}?next={wanted}"})


def _admit(
    row: ConsoleRow, request: web.Request, session: ConsoleSession | None, role: Role
) -> None:
    if session is None:
        raise ApiRefusal(ApiReason.SESSION_NEEDED)
    if not permits(session.principal.roles, role):
        raise ApiRefusal(ApiReason.ROLE_REFUSED, f"it takes the role {role}")
    if row.method != "GET":
        _check_origin(request)
        given = request.headers.getall(CSRF_HEADER, [])
        if len(given) != 1 or not session.allows(given[0]):
            raise ApiRefusal(ApiReason.CSRF_REFUSED)
    ORIGIN.set(origin_of(request))


def _check_origin(request: web.Request) -> None:
    """A browser says where a change comes from; it must be this listener."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
        raise ApiRefusal(ApiReason.CSRF_REFUSED)
