"""A proxy tells of its traffic: only its own, only in its form, and at no one's cost."""

import json

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.request_proof import HEADER, prove
from palyra_fleet.wire.traffic_models import TrafficReport
from tests.fakes.raw_http import RawAnswer, ask
from tests.fakes.served_fleet import ServedFleet

TARGET = "/v1/proxy/traffic"


async def as_proxy(fleet: ServedFleet, body: bytes) -> RawAnswer:
    proof = prove(fleet.proxy_key, "POST", TARGET, body, now_unix_ms())
    headers = {HEADER: proof, "Content-Type": "application/json"}
    return await ask(fleet.socket_path, "POST", TARGET, body, headers)


async def test_what_a_proxy_told_is_what_an_operator_reads(fleet: ServedFleet) -> None:
    report = TrafficReport(since_unix_ms=2**52, allowed={"egress.allowed": 2}, bytes_in=9)
    async with fleet.as_proxy() as proxy, fleet.as_operator() as operator:
        await proxy.report_traffic(report)
        told = await operator.traffic()
    assert [(one.proxy_id, one.report) for one in told.proxies] == [("proxy-1", report)]
    assert [(one.allowed, one.bytes_in) for one in told.minutes] == [(2, 9)]


async def test_hostile_labels_and_numbers_are_refused_and_nothing_of_them_is_kept(
    fleet: ServedFleet,
) -> None:
    hostile = (
        {"refused": {"<img src=x onerror=alert(1)>": 1}},
        {"allowed": {"egress.allowed": 10**400}},
        {"rules": [{"rule_id": "\u202egnp.exe"}]},
        {"workers": [{"worker_id": "../../admin"}]},
        {"proxy_id": "proxy-2"},
    )
    for bent in hostile:
        answer = await as_proxy(fleet, json.dumps({"since_unix_ms": 1, **bent}).encode())
        assert (answer.status, answer.reason) == (400, "api.body_invalid"), bent
    assert (await as_proxy(fleet, b'{"since_unix_ms": NaN}')).status == 400
    async with fleet.as_operator() as operator:
        told = await operator.traffic()
    assert (told.proxies, told.minutes) == ((), ())


async def test_a_proxy_that_tells_all_the_time_is_told_to_wait_before_it_is_read(
    fleet: ServedFleet,
) -> None:
    now = now_unix_ms()
    fleet.service.clock = lambda: now
    assert (await as_proxy(fleet, b'{"since_unix_ms": 1}')).status == 204
    answers = [await as_proxy(fleet, b"not even JSON") for _ in range(2)]
    assert {(one.status, one.reason, one.headers["retry-after"]) for one in answers} == {
        (429, "api.too_fast", "1")
    }
