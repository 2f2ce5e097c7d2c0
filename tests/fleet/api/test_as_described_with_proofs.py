"""What workers, proxies and machines are answered is what the OpenAPI document says.

schemathesis makes bodies, queries and paths of every operation of the listener for other machines,
in and out of its schemas; each goes with a valid proof of the caller's own key, over its machine's
certificate, to a real fleet. Half of them name the session, the run, the lease and the key that
there are, so that the fleet has to judge and not only to read. No 5xx, no status, content type or
body that the document lacks, and nobody is told that it may not call. The clock goes on between
calls, so that rates are kept. `make schemathesis` tries more.
"""

import base64
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import hypothesis
import hypothesis.errors
import jsonschema
import pytest
import schemathesis
from schemathesis import Case, GenerationMode
from yarl import URL

from palyra_fleet.api.openapi import openapi_bytes
from palyra_fleet.api.problems import ApiReason
from palyra_fleet.api.routes import Listener, Row, rows_of, shape
from palyra_fleet.client.transport import SERVER_NAME
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.request_proof import HEADER, prove
from tests.fakes.fleet_world import SCOPE, WorkerPen
from tests.fakes.ledger_world import ulid
from tests.fakes.remote_world import Machine, RemoteWorld, remote_world
from tests.fleet.api.test_remote_hostile import context_of
from tests.fleet.cli.described import EXAMPLES, LONGER, TIMEOUT_S

DOCUMENT: dict[str, Any] = json.loads(openapi_bytes(Listener.REMOTE))
ROWS = {(row.method, shape(row.path)): row for row in rows_of(Listener.REMOTE)}
LONGEST_WAIT_MS = 20
BETWEEN_MS = {"device": 1_100, "worker": 40, "proxy": 600, "key_in_body": 30, "anybody": 10}
"""At least what a call costs of its caller's rate; a proxy tells of traffic twice a second."""
KEY_IN_BODY = {"/v1/attestation/nonce", "/v1/workers:register", "/v1/device/proxy"}
"""Where a body that names any other key is no good."""
BENT = {ApiReason.BODY_INVALID, ApiReason.QUERY_INVALID, ApiReason.NOT_FOUND}
NOT_THEIRS = {ApiReason.PROOF_REFUSED, ApiReason.CALLER_NOT_ALLOWED, ApiReason.OTHER_DEVICE}


@dataclass(frozen=True, slots=True)
class Caller:
    machine: Machine
    key: SigningKey


@dataclass(frozen=True, slots=True)
class Callers:
    """Who calls what, and what there is that bodies may name."""

    world: RemoteWorld
    worker: Caller
    proxy: Caller
    session_epoch: int
    lease: wire.LeaseAnswer

    def of(self, path: str) -> Caller:
        return self.proxy if path.startswith(("/v1/proxy", "/v1/device/proxy")) else self.worker

    def known(self, path: str) -> dict[str, Any]:
        return {
            "session_epoch": self.session_epoch,
            "run_id": self.lease.run_id,
            "fence": self.lease.fence,
            "public_key": base64.b64encode(self.of(path).key.public_key).decode(),
        }


@pytest.fixture
async def callers() -> AsyncIterator[Callers]:
    async with remote_world() as world:
        host, (proxy_host, pen) = await world.worker_host(), await world.proxy_host()
        worker = WorkerPen(ulid(201))
        await world.register(host, worker, pen)
        await world.fleet.grant("run-1")
        async with host.as_worker(worker.key) as client:
            asked = wire.LeaseRequest(
                session_epoch=worker.session_epoch,
                run_id="run-1",
                ttl_ms=600_000,
                workspace_scope=SCOPE,
            )
            lease = await client.request_lease(asked)
        as_worker, as_proxy = Caller(host, worker.key), Caller(proxy_host, pen.key)
        yield Callers(world, as_worker, as_proxy, worker.session_epoch, lease)


def cases_of(method: str, path: str, mode: GenerationMode) -> list[Case[Any]]:
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]
    found: list[Case[Any]] = []

    @hypothesis.settings(
        max_examples=max(8, EXAMPLES),
        database=None,
        derandomize=LONGER is None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode))
    def keep(case: Case[Any]) -> None:
        found.append(case)

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong with it
        keep()
    return found


def sent(callers: Callers, case: Case[Any], number: int) -> tuple[str, bytes]:
    """Target and body. Every second one names what there is; nothing waits long."""
    body: Any = case.body
    target, query = case.formatted_path, dict(case.query or {})
    if number % 2 and isinstance(body, dict):
        body = {**body, **{k: v for k, v in callers.known(case.path).items() if k in body}}
        for part in case.path_parameters or {}:
            target = case.path.replace(f"{{{part}}}", callers.lease.lease_id)
    if isinstance(body, dict) and isinstance(body.get("wait_ms"), int):
        body = {**body, "wait_ms": min(body["wait_ms"], LONGEST_WAIT_MS)}
    if str(query.get("wait_ms", "")).isdigit():
        query["wait_ms"] = min(int(query["wait_ms"]), LONGEST_WAIT_MS)
    if query:
        target = f"{target}?{urlencode(query, doseq=True)}"
    if isinstance(body, bytes):
        return target, body
    if isinstance(body, dict | list | str | int | float | bool | type(None)):
        return target, json.dumps(body).encode()
    return target, b""  # not set


def schema_of(described: dict[str, Any], content_type: str) -> dict[str, Any]:
    _, _, shared = described.get("$ref", "").rpartition("/")
    answer = DOCUMENT["components"]["responses"][shared] if shared else described
    schema: dict[str, Any] = answer["content"][content_type]["schema"]
    return {**schema, "components": DOCUMENT["components"]}


def operations() -> Iterator[tuple[str, str, Row]]:
    for path, methods in DOCUMENT["paths"].items():
        for method in methods:
            yield method, path, ROWS[method.upper(), path]


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize(
    ("method", "path", "row"),
    [pytest.param(*one, id=f"{one[0]} {one[1]}") for one in operations()],
)
async def test_no_body_with_a_valid_proof_gets_an_answer_that_is_not_in_the_document(
    callers: Callers, method: str, path: str, row: Row
) -> None:
    described, caller = DOCUMENT["paths"][path][method]["responses"], callers.of(path)
    seen: Counter[tuple[int, str]] = Counter()
    cases = [one for mode in GenerationMode for one in cases_of(method, path, mode)]
    tls = aiohttp.TCPConnector(ssl=context_of(caller.machine))
    async with aiohttp.ClientSession(connector=tls, skip_auto_headers=["Content-Type"]) as session:
        for number, case in enumerate(cases):
            target, body = sent(callers, case, number)
            now = callers.world.clock()
            headers = {HEADER: prove(caller.key, method.upper(), target, body, now)}
            if body:
                headers["Content-Type"] = "application/json"
            async with session.request(
                method,
                URL(callers.world.url + target, encoded=True),
                data=body or None,
                headers=headers,
                server_hostname=SERVER_NAME,
            ) as answer:
                told = "" if row.streams and answer.status == 200 else await answer.text()
                status, kind = answer.status, answer.content_type
            reason = json.loads(told)["reason"] if kind == "application/problem+json" else ""
            seen[status, reason] += 1
            assert status < 500, (target, body, told)
            assert str(status) in described, (target, body, told)
            if told:
                jsonschema.validate(json.loads(told), schema_of(described[str(status)], kind))
            else:
                assert status == 204 or row.streams, (target, body)
            callers.world.clock.ahead_ms += BETWEEN_MS[row.who]
    print(f"{method} {path}: {len(cases)} answers: {dict(seen)}")
    reasons = {reason for _, reason in seen}
    assert row.path in KEY_IN_BODY or not reasons & NOT_THEIRS, seen
    assert reasons - NOT_THEIRS - BENT, seen
