"""The table of routes is what is served: a stray, a missing or a double route stops the start."""

from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from palyra_fleet.api.application import ApiSettings, make_application
from palyra_fleet.api.callers import Who
from palyra_fleet.api.devices import DeviceGate
from palyra_fleet.api.health_calls import live
from palyra_fleet.api.problems import ApiReason
from palyra_fleet.api.routes import ROUTES, Listener, RouteTableError, Row, refuse_strays, rows_of
from palyra_fleet.console.routes import CONSOLE_ROUTES
from palyra_fleet.identity.ports import NodeIdentity
from palyra_fleet.principals.book import PrincipalBook, token_sha256
from palyra_fleet.wire.principal_models import Role
from tests.fakes.fleet_service import FakeFleetService

SETTINGS = ApiSettings(PrincipalBook.open(Path("principals.json"), token_sha256("t")))


async def stray(request: web.Request) -> web.Response:
    return web.Response()


@pytest.mark.parametrize("listener", Listener)
def test_each_application_serves_exactly_its_rows(listener: Listener) -> None:
    gate = DeviceGate(cast(NodeIdentity, None), lambda: 0) if listener is Listener.REMOTE else None
    application = make_application(listener, FakeFleetService(), SETTINGS, devices=gate)
    console = len(CONSOLE_ROUTES) if listener is Listener.ADMIN else 0
    assert len(list(application.router.routes())) == len(rows_of(listener)) + console


def test_a_route_without_a_row_stops_the_start() -> None:
    application = web.Application()
    application.router.add_get("/stray", stray, allow_head=False)
    with pytest.raises(RouteTableError):
        refuse_strays(application, ())


def test_a_row_without_a_route_stops_the_start() -> None:
    with pytest.raises(RouteTableError):
        refuse_strays(web.Application(), (Row("GET", "/missing", Who.ANYBODY, live),))


def test_two_rows_of_one_route_stop_the_start() -> None:
    application = web.Application()
    application.router.add_route("GET", "/twice", stray)
    row = Row("GET", "/twice", Who.ANYBODY, live)
    with pytest.raises(RouteTableError):
        refuse_strays(application, (row, row))


def test_no_operator_route_is_on_the_socket_and_no_other_on_the_admin_listener() -> None:
    assert all(row.who is not Who.OPERATOR for row in rows_of(Listener.SOCKET))
    assert {row.who for row in rows_of(Listener.ADMIN)} == {Who.OPERATOR, Who.ANYBODY, Who.STRANGER}


def test_nobody_may_call_anything_but_health_and_the_description() -> None:
    anybody = {row.path for row in ROUTES if row.who in {Who.ANYBODY, Who.STRANGER}}
    assert anybody == {"/livez", "/readyz", "/openapi.json"}


def test_every_change_takes_a_body_except_the_check_of_the_log() -> None:
    without = {row.path for row in ROUTES if row.method == "POST" and row.body is None}
    assert without == {"/v1/events:verify"}


def test_every_reason_of_the_http_layer_has_a_row_and_its_own_heading() -> None:
    assert len({reason.heading for reason in ApiReason}) == len(ApiReason)
    assert all(400 <= reason.http_status < 600 for reason in ApiReason)


def test_a_row_of_principals_without_a_role_stops_the_start() -> None:
    row = Row("GET", "/roleless", Who.OPERATOR, live)
    application = web.Application()
    application.router.add_route("GET", "/roleless", stray)
    with pytest.raises(RouteTableError, match="/roleless"):
        refuse_strays(application, (row,))


def test_looking_takes_a_viewer_and_changing_takes_more() -> None:
    by_method = {
        method: {row.allowed for row in ROUTES if row.method == method and row.who is Who.OPERATOR}
        for method in ("GET", "POST")
    }
    assert by_method["GET"] == {Role.VIEWER, Role.ADMIN}
    looking = {row.path for row in ROUTES if row.method == "POST" and row.allowed is Role.VIEWER}
    assert looking == {"/v1/events:verify", "/v1/policies:check", "/v1/policies:explain"}


def test_the_settings_never_show_a_tokens_digest() -> None:
    assert token_sha256("t") not in repr(SETTINGS)
