"""A running proxy and its policy file: what a saved change does to requests, log and audit."""

import logging
from pathlib import Path
from typing import Any

import pytest

from palyra_egress.proxy.egress_proxy import PolicyRefused
from tests.egress.approvals.people import Team, text
from tests.fakes.proxy_harness import Harness, basic, proxy_harness
from tests.fakes.until import until

PROFILE = "profiles: {p: "


def policy(*hosts: int) -> str:
    return text(*hosts).replace(PROFILE, "profiles: {test: ")


async def reason(harness: Harness, host: str) -> str:
    """What CONNECT to this host is answered; the names resolve to nothing."""
    reply = await harness.send(
        f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n"
        f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
    )
    assert reply is not None
    return reply.reason


def changes(harness: Harness) -> list[dict[str, Any]]:
    return [entry for entry in harness.audit() if entry["kind"] == "policy"]


async def test_a_change_that_widens_is_flagged_in_log_and_audit_and_counts_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy_harness(tmp_path / "proxy", policy(1), "192.0.2.1 h2.example\n") as harness:
        assert await reason(harness, "h2.example") == "egress.host_not_allowed"
        before = harness.core.service.policy_digest
        with caplog.at_level(logging.INFO, "palyra_egress.proxy.egress_proxy"):
            (harness.directory / "policy.yaml").write_text(policy(1, 2))
            await until(
                "the policy is another", lambda: harness.core.service.policy_digest != before
            )
            assert await reason(harness, "h2.example") != "egress.host_not_allowed"
            (harness.directory / "policy.yaml").write_text(policy(2))
            await until("the change is in the log", lambda: len(changes(harness)) == 2)
        widened, narrowed = changes(harness)
        assert widened["replaces_digest"] == before and widened["widens"] == 1
        assert "https://h2.example:443/**" in widened["widening"][0]
        assert narrowed["widens"] == 0 and narrowed["replaces_digest"] == widened["policy_digest"]
        levels = {"WIDENS" in record.message: record.levelname for record in caplog.records}
        assert levels[True] == "WARNING"


async def test_included_files_are_swapped_together_as_a_mounted_folder_does_it(
    tmp_path: Path,
) -> None:
    """All names lead through one link, which is replaced: the layout of a Kubernetes volume."""
    directory = tmp_path / "proxy"
    outer = "version: 1\nname: test\ninclude: [team.yaml]\nprofiles: {test: [r]}\n"
    team = "version: 1\nname: team\nrules:\n  - {id: r, hosts: [h1.example]}\n"
    for version in ("1", "2"):
        folder = directory / f"..v{version}"
        folder.mkdir(parents=True)
        (folder / "policy.yaml").write_text(outer)
        (folder / "team.yaml").write_text(team.replace("h1", f"h{version}"))
    (directory / "..data").symlink_to("..v1")
    for name in ("policy.yaml", "team.yaml"):
        (directory / name).symlink_to(f"..data/{name}")
    async with proxy_harness(directory, outer, "192.0.2.1 h2.example\n") as harness:
        assert await reason(harness, "h2.example") == "egress.host_not_allowed"
        digest = harness.core.service.policy_digest
        (directory / "..fresh").symlink_to("..v2")
        (directory / "..fresh").replace(directory / "..data")
        await until("the policy is another", lambda: harness.core.service.policy_digest != digest)
        assert len(changes(harness)) == 1
        assert await reason(harness, "h2.example") != "egress.host_not_allowed"
        assert await reason(harness, "h1.example") == "egress.host_not_allowed"
        (directory / "..v2" / "team.yaml").write_text(team.replace("hosts", "host"))
        await until(
            "the mistake is told",
            lambda: "unknown_key" in harness.proxy.enforcement.problems()["policy"],
        )
        assert await reason(harness, "h1.example") == "egress.host_not_allowed"
        (directory / "..v2" / "team.yaml").write_text(team)
        await until("the change is in the log", lambda: len(changes(harness)) == 2)
        assert harness.proxy.enforcement.problems()["policy"] == "ok"


async def test_a_change_that_too_few_approved_keeps_the_last_good_policy_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    team = Team(tmp_path / "people")
    directory = tmp_path / "proxy"
    team.policy.write_text(policy(1))
    directory.mkdir()
    for name in ("ada", "ben"):
        team.add(team.envelope(name, 1))
    (directory / "policy.yaml.approvals").write_bytes(team.approvals.read_bytes())
    async with proxy_harness(directory, policy(1), approvers_file=team.approvers) as harness:
        good = harness.core.service.policy_digest
        (directory / "policy.yaml").write_text(policy(1, 2))
        await until(
            "the problem is told", lambda: harness.proxy.enforcement.problems()["policy"] != "ok"
        )
        told = harness.proxy.enforcement.problems()["policy"]
        assert "0 of 2 approvals" in told and "https://h2.example:443/**" in told
        assert harness.core.service.policy_digest == good
        assert await reason(harness, "h2.example") == "egress.host_not_allowed"
        await until("the log tells", lambda: "the policy in force stays" in caplog.text)
        team.policy.write_text(policy(1, 2))
        team.approve(2, "ada", "cem")
        (directory / "policy.yaml.approvals").write_bytes(team.approvals.read_bytes())
        await until("the policy is another", lambda: harness.core.service.policy_digest != good)
        assert harness.proxy.enforcement.problems()["policy"] == "ok"


async def test_without_enough_approvals_the_proxy_does_not_start(tmp_path: Path) -> None:
    team = Team(tmp_path / "people")
    with pytest.raises(PolicyRefused, match="0 of 2 approvals"):
        async with proxy_harness(tmp_path / "p", policy(1), approvers_file=team.approvers):
            pass
