"""Two persons release a worker from the command line, against a fleet that takes two."""

import json
from pathlib import Path

from palyra_fleet.client import OperatorClient
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import GrantRequest, ReferenceValues
from palyra_fleet.wire.principal_models import CreatePrincipal, Role
from palyra_fleet.worker.launcher import measure
from tests.fakes.real_fleet import enrolment
from tests.fakes.receipt_proxy import receipt_proxy
from tests.fleet.cli.conftest import Said, Shell, running, shell
from tests.fleet.cli.test_commands import run_command

__all__ = ["shell"]
WORKER = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
GRANT = GrantRequest(
    run_id="run-1", tool_name="sh", principal="ops", egress_profile="default", ttl_ms=3_600_000
)


def _admin(fleet: Shell) -> OperatorClient:
    token = (fleet.home / "operator.token").read_text().strip()
    return OperatorClient((fleet.home / "admin.url").read_text().strip(), token)


async def _quarantined_and_back(fleet: Shell, client: OperatorClient) -> None:
    """The worker ran, was stopped by an operator, and has attested with a new key."""
    proxy_key = SigningKey.generate()
    await client.enrol_proxy(enrolment("proxy-1", proxy_key))
    launcher_key = SigningKey.load_or_create(fleet.home / "launcher.pem")
    await client.enrol_launcher(enrolment("launcher-1", launcher_key))
    measured = measure("sh")
    values = ReferenceValues(
        image_digests_sha256=(measured.image_digest_sha256,),
        build_digests_sha256=(measured.build_digest_sha256,),
        artifact_digests_sha256=(measured.artifact.digest_sha256,),
    )
    await client.add_reference_values(values)
    await client.create_grant(GRANT)
    async with receipt_proxy(proxy_key) as proxy:
        command = run_command(fleet, proxy.address, "sh", "-c", ":")
        again = (*command[:2], "--worker-id", WORKER, *command[2:])
        first = await fleet(*again)
        assert first.code == 0, first.err
        assert (await fleet("worker", "quarantine", WORKER, "--reason", "odd")).code == 0
        refused = await fleet(*again)
        assert "the worker is quarantined" in refused.err, refused


async def _somebody(fleet: Shell, client: OperatorClient, name: str, role: Role) -> Path:
    made = await client.create_principal(CreatePrincipal(name=name, roles=(role,), reason="test"))
    file = fleet.home / f"{name}.token"
    file.touch(0o600)
    file.write_text(made.token)
    return file


async def test_one_asks_another_approves_and_each_is_told_what_is_still_needed(
    shell: Shell,
) -> None:
    async with running(shell, "--two-person-release"), _admin(shell) as client:
        await _quarantined_and_back(shell, client)
        olga = await _somebody(shell, client, "olga", Role.OPERATOR)
        anna = await _somebody(shell, client, "anna", Role.APPROVER)

        async def act(who: Path | None, verb: str, *words: str) -> Said:
            token = () if who is None else ("--token-file", str(who))
            return await shell("worker", verb, *words, "--reason", "looked at", *token)

        alone = await act(None, "release", WORKER)
        assert (alone.code, "[worker.release_requires_second_person]" in alone.err) == (1, True)
        assert "request-release" in alone.err
        asked = await act(olga, "request-release", WORKER, "-o", "json")
        release_id = json.loads(asked.out)["release_id"]
        assert "still quarantined: another person must approve by " in asked.err
        assert f"palyra-fleet worker approve-release {release_id}" in asked.err
        waiting = await shell("worker", "requests")
        assert all(word in waiting.out for word in (release_id, WORKER, "olga", "looked at"))
        assert (await act(olga, "withdraw-release", release_id)).err == "withdrawn\n"
        release_id = (await client.request_release(WORKER, "once more")).release_id
        same = await act(None, "approve-release", release_id)
        assert (same.code, "[worker.release_by_same_person]" in same.err) == (1, True)
        done = await act(anna, "approve-release", release_id, "-o", "json")
        assert json.loads(done.out)["admission"] == "active"
        assert await client.release_requests() == ()
