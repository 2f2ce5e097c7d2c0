"""The same gate in front of the real fleet: a row lets in its callers, and the fleet answers them.

Each allowed call must get the fleet's own answer (a good one or one of its refusals), never a
fault; each other must be refused by the gate. One real worker and one real proxy call everything.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from palyra_fleet.api.callers import Who
from palyra_fleet.api.routes import ROUTES, Listener
from palyra_fleet.client import WorkerClient
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import HeartbeatRequest, RegisterRequest
from palyra_fleet.wire.request_proof import HEADER, prove
from palyra_fleet.worker.launcher import Statement
from palyra_fleet.worker.receipt import fetch_receipt
from tests.fakes.raw_http import ask, open_connection
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fleet.api.test_who_may_call import body_of, path_of


@asynccontextmanager
async def registered(fleet: RealFleet) -> AsyncIterator[SigningKey]:
    """The key of a worker that the real fleet admitted."""
    measured = await fleet.accept("/bin/sh")
    session, key = fleet.session(), SigningKey.generate()
    async with WorkerClient(fleet.server.socket_path, key) as worker:
        nonce = (await worker.issue_nonce()).nonce
        receipt = await fetch_receipt(fleet.proxy.address, key, nonce)
        statement = Statement(session.identity, measured, nonce, key, False, now_unix_ms())
        evidence = session.launcher.attest(statement).envelope
        public_key = base64.b64encode(key.public_key).decode()
        await worker.register(
            RegisterRequest(public_key=public_key, evidence=evidence, receipt=receipt)
        )
        yield key


async def status_of(where: Path | str, request: bytes) -> int:
    """Only the status: a view never ends by itself."""
    reader, writer = await open_connection(where)
    writer.write(request)
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def test_every_route_of_the_real_fleet_lets_in_exactly_its_callers() -> None:
    async with real_fleet() as fleet, registered(fleet) as worker_key:
        stranger = SigningKey.generate()
        keys = {"worker": worker_key, "proxy": fleet.proxy_key, "foreign key": stranger}
        allowed = {
            Who.ANYBODY: {"nobody", "operator", *keys},
            Who.STRANGER: {"nobody", "operator", *keys},
            Who.KEY_IN_BODY: set(keys),
            Who.WORKER: {"worker"},
            Who.PROXY: {"proxy"},
            Who.OPERATOR: {"operator"},
        }
        for row in ROUTES:
            if row.who is Who.DEVICE:
                continue  # on the listener for other machines only
            on_socket = Listener.SOCKET in row.listeners
            where = fleet.server.socket_path if on_socket else fleet.server.admin_url
            for caller in ("nobody", "operator", *keys):
                key = keys.get(caller, stranger)
                path, body = path_of(row), body_of(row, key)
                headers = {"Host": "localhost"}
                if caller in keys:
                    headers[HEADER] = prove(key, row.method, path, body, now_unix_ms())
                elif caller == "operator":
                    headers["Authorization"] = f"Bearer {fleet.token}"
                if body:
                    headers |= {
                        "Content-Type": "application/json",
                        "Content-Length": str(len(body)),
                    }
                endless = row.path in {"/v1/proxy/view", "/v1/events/stream"}
                if endless and caller in allowed[row.who]:
                    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                    request = f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()
                    assert await status_of(where, request) == 200
                    continue
                answer = await ask(where, row.method, path, body, headers)
                refused_by_gate = answer.status >= 400 and answer.reason.startswith("api.")
                assert answer.status != 500, (row.path, caller)
                assert refused_by_gate is (caller not in allowed[row.who]), (row.path, caller)


async def test_many_heartbeats_at_once_are_each_answered_once() -> None:
    async with real_fleet() as fleet, registered(fleet) as key:
        async with WorkerClient(fleet.server.socket_path, key) as worker:
            answers = await asyncio.gather(
                *(worker.heartbeat(HeartbeatRequest(session_epoch=1, seq=n)) for n in range(1, 30)),
                return_exceptions=True,
            )
        good = [answer for answer in answers if not isinstance(answer, Exception)]
        assert good
        assert {
            getattr(one, "reason", "worker.heartbeat_old") for one in answers if one not in good
        } <= {"worker.heartbeat_old"}


@pytest.mark.parametrize("name", ["store", "service", "reaper"])
async def test_the_real_fleet_is_ready_check_by_check(name: str) -> None:
    async with real_fleet() as fleet:
        answer = await ask(fleet.server.socket_path, "GET", "/readyz")
        assert answer.status == 200
        assert f'"{name}": "ok"'.encode() in answer.body
        await fleet.service.close()
        assert (await ask(fleet.server.socket_path, "GET", "/readyz")).status == 503
