"""Makes the console's application, which hangs below `/console` on the admin listener.

Errors, request ids, the check of the Host header and the security headers are the listener's own.
"""

from collections.abc import Callable

from aiohttp import web

from palyra_fleet.api.callers import TokenGate
from palyra_fleet.api.owed_entries import OwedEntries
from palyra_fleet.console.gate import PREFIX, ConsoleDesk, serve
from palyra_fleet.console.openapi import console_openapi_bytes
from palyra_fleet.console.routes import CONSOLE_ROUTES
from palyra_fleet.console.sessions import ConsoleSessions
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.principals.book import PrincipalBook
from palyra_fleet.service.fleet_service import FleetService

__all__ = ["PREFIX", "make_console"]


def make_console(
    service: FleetService,
    nodes: NodeOperations | None,
    principals: PrincipalBook,
    tokens: TokenGate,
    clock: Callable[[], int],
    owed: OwedEntries,
) -> web.Application:
    """One application with sessions of its own; `tokens` counts wrong tokens for both ways in,
    and `owed` is of both."""
    sessions = ConsoleSessions(principals.still_holds)
    described = console_openapi_bytes(CONSOLE_ROUTES)
    desk = ConsoleDesk(service, nodes, sessions, tokens, clock, described, owed=owed)

    async def sign_everybody_out(_: web.Application) -> None:
        """Live streams end with their sessions, so that a stop does not wait for open pages."""
        desk.sessions.end_all()

    application = web.Application()
    application.on_shutdown.append(sign_everybody_out)
    for row in CONSOLE_ROUTES:
        application.router.add_route(row.method, row.path, serve(desk, row))
    return application
