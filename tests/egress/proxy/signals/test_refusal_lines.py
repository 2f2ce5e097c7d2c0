"""A refusal in the proxy's log: under the id that the worker is told, without what it asked for."""

import json
from pathlib import Path

from tests.fakes.log_lines import json_lines
from tests.fakes.proxy_harness import LEASE, WORKER, basic, proxy_harness
from tests.fakes.upstream import recording_upstream

POLICY = """\
version: 1
name: test
rules:
  - id: plain
    hosts: [plain.example]
    schemes: [http]
    ports: [{port}]
    private: [127.0.0.0/8]
profiles:
  test: [plain]
violations:
  quarantine: [metadata_target]
"""
HOSTS = "127.0.0.1 plain.example\n"
LOGGER = "palyra_egress.proxy.signals.refusal_lines"


def request(url: str, credentials: str) -> bytes:
    host = url.split("/")[2]
    return (
        f"GET {url} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {credentials}\r\n\r\n"
    ).encode()


async def test_a_refusal_a_violation_and_a_stranger(tmp_path: Path) -> None:
    with json_lines(LOGGER) as found:
        await _three_refusals(tmp_path, found)


async def _three_refusals(tmp_path: Path, found: list[dict[str, object]]) -> None:
    async with (
        recording_upstream() as upstream,
        proxy_harness(tmp_path, POLICY.format(port=upstream.port), HOSTS) as harness,
    ):
        allowed = await harness.send(request(f"http://plain.example:{upstream.port}/", basic()))
        assert allowed is not None and allowed.status == 200
        assert found == []  # what is allowed stands in the audit log alone
        refused = await harness.send(request("http://s3cr3t.example/p4th?q=qu3ry", basic()))
        stranger = await harness.send(request("http://s3cr3t.example/", basic(LEASE, "x" * 43)))
        violation = await harness.send(request("http://169.254.169.254/latest/p4th", basic()))
    assert refused is not None and stranger is not None and violation is not None
    ids = [answer.headers["x-palyra-decision"] for answer in (refused, stranger, violation)]
    assert [line["palyra.decision.id"] for line in found] == ids
    assert [line["event.reason"] for line in found] == [
        "egress.host_not_allowed",
        "egress.bad_credentials",
        "egress.metadata_target",
    ]
    assert [line["log.level"] for line in found] == ["info", "info", "warning"]
    assert found[2]["palyra.consequence"] == "quarantine"
    assert (found[2]["palyra.worker.id"], found[2]["palyra.lease.id"]) == (WORKER, LEASE)
    assert found[0]["palyra.policy.digest"]
    assert "palyra.worker.id" not in found[1]
    for word in ("s3cr3t", "p4th", "qu3ry", "x" * 43):
        assert word not in json.dumps(found)
