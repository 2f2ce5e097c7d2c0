"""Every route against every kind of caller at the listener for other machines, over mutual TLS.

Each caller is a machine and what it shows there: a proof of a key, a principal's token, or nothing.
What is not served there is not found, whoever asks.
"""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from palyra_fleet.api.callers import Who
from palyra_fleet.api.routes import ROUTES, Listener, Row, rows_of
from palyra_fleet.node_agent.keeper import client_context
from palyra_fleet.node_agent.material import Certificate
from palyra_fleet.principals.book import Principal, token_sha256
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.principal_models import Role
from palyra_fleet.wire.request_proof import HEADER, prove
from tests.fakes.fleet_world import WorkerPen
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import forged
from tests.fakes.raw_http import OverTls, ask_raw, request_of
from tests.fakes.remote_world import Machine, RemoteWorld, remote_world
from tests.fakes.served_fleet import TOKENS
from tests.fleet.api.test_remote_hostile import NAME, context_of
from tests.fleet.api.test_who_may_call import body_of, path_of

ON_NODES = {"worker", "worker elsewhere", "foreign key", "node", *Role}
ON_PROXIES = {"proxy", "proxy elsewhere", "proxy alone"}
PAIRED = {*ON_NODES, *ON_PROXIES, "desktop"}
OUTSIDE = {"no certificate", "another authority's", "revoked"}
ALLOWED = {
    Who.ANYBODY: PAIRED,
    Who.KEY_IN_BODY: {"worker", "worker elsewhere", "foreign key"},
    Who.WORKER: {"worker"},
    Who.PROXY: {"proxy"},
    Who.DEVICE: {*ON_NODES, *ON_PROXIES},
}
OF_PROXIES = {"/v1/device/proxy": {"proxy", "proxy alone"}}
"""Rows that a machine may call for itself if it paired as a proxy, with the key it paired with."""
REFUSALS = {"api.proof_refused", "api.caller_not_allowed", "api.other_device"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Which certificate, and what is shown behind it. `key` is also the key that bodies name."""

    context: ssl.SSLContext
    key: SigningKey
    proves: bool = False
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """`status` 0: the listener took no request from this caller."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Callers:
    world: RemoteWorld
    by_name: dict[str, Caller]

    async def call(self, name: str, row: Row) -> Answered:
        caller, path = self.by_name[name], path_of(row)
        body = body_of(row, caller.key)
        headers = {"Content-Type": "application/json"} if body else {}
        if caller.proves:
            now = self.world.clock()
            headers[HEADER] = prove(caller.key, row.method, path, body, now)
        if caller.token is not None:
            headers["Authorization"] = f"Bearer {caller.token}"
        where = OverTls(self.world.port, caller.context, NAME)
        try:
            request = request_of(row.method, path, body, headers)
            answer = await ask_raw(where, request, may_go_on=row.streams)
        except (OSError, EOFError):  # ssl.SSLError is an OSError
            return Answered(0, "")
        return Answered(answer.status, answer.reason if answer.status >= 400 else "")


@pytest.fixture
async def callers() -> AsyncIterator[Callers]:
    async with remote_world() as world:
        host, other, gone = [await world.worker_host() for _ in range(3)]
        (proxy_host, pen), (other_proxy, _) = await world.proxy_host(), await world.proxy_host()
        desktop, worker = await world.pair("desktop"), WorkerPen(ulid(201))
        await world.register(host, worker, pen)
        for role, token in TOKENS.items():
            world.principals.create(Principal(f"{role}-1", frozenset({role}), token_sha256(token)))
        await world.identity.revoke_device(gone.device_id, "lost", "alice")
        own, stranger = context_of, SigningKey.generate()
        by_name = {
            "worker": Caller(own(host), worker.key, proves=True),
            "worker elsewhere": Caller(own(other), worker.key, proves=True),
            "foreign key": Caller(own(host), stranger, proves=True),
            "node": Caller(own(host), host.key),
            "proxy": Caller(own(proxy_host), pen.key, proves=True),
            "proxy elsewhere": Caller(own(other_proxy), pen.key, proves=True),
            "proxy alone": Caller(own(proxy_host), proxy_host.key),
            "desktop": Caller(own(desktop), desktop.key, proves=True),
            "no certificate": Caller(_bare(host), worker.key, proves=True),
            "another authority's": Caller(_forged(host), worker.key, proves=True),
            "revoked": Caller(own(gone), worker.key, proves=True),
        }
        roles = {role: Caller(own(host), host.key, token=TOKENS[role]) for role in Role}
        yield Callers(world, {**by_name, **roles})


def _bare(machine: Machine) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=machine.roots_pem)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _forged(machine: Machine) -> ssl.SSLContext:
    material = forged(None, machine.device_id)
    certificate = Certificate(material.chain_pem.decode(), material.key_pem.decode(), 0)
    return client_context(certificate, machine.roots_pem)


@pytest.mark.parametrize(
    "row", rows_of(Listener.REMOTE), ids=lambda row: f"{row.method} {row.path}"
)
async def test_a_route_lets_in_exactly_the_machines_and_callers_of_its_row(
    callers: Callers, row: Row
) -> None:
    allowed = OF_PROXIES.get(row.path, ALLOWED[row.who])
    assert set(callers.by_name) == PAIRED | OUTSIDE
    for name in callers.by_name:
        answer = await callers.call(name, row)
        if name in allowed:
            assert answer.status >= 200 and answer.status != 500, (name, answer)
            assert not answer.reason.startswith("api."), (name, answer)
        elif name == "revoked":
            assert answer in {Answered(0, ""), Answered(403, "node.certificate_revoked")}
        elif name in OUTSIDE:
            assert answer == Answered(0, ""), name
        else:
            assert answer.status in {401, 403} and answer.reason in REFUSALS, (name, answer)


async def test_what_is_for_others_is_not_found_by_any_machine(callers: Callers) -> None:
    elsewhere = [row for row in ROUTES if Listener.REMOTE not in row.listeners]
    assert len(elsewhere) > 50
    for row in elsewhere:
        for name in ("worker", "proxy", "desktop", Role.ADMIN):
            answer = await callers.call(name, row)
            assert answer == Answered(404, "api.not_found"), (name, row.path)
