"""The worker runtime with real proxy and real fleet: proofs during a lease, and known leases."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ulid import ULID

from palyra_egress.embedded import Embedded, EmbeddedSettings, embedded
from palyra_egress.facts import write_digest
from palyra_egress.installation import Installation
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import EnrolKeyRequest, ReferenceValues, WorkspaceScopeModel
from palyra_fleet.worker.launcher import Launcher, WorkerIdentity, measure
from palyra_fleet.worker.lease_check import LeaseCheck, LeaseNotKnown, wait_until_known
from palyra_fleet.worker.session import SessionSettings, WorkerSession
from palyra_fleet.worker.timekeeper import LoopTime
from tests.fakes.proxy_harness import basic, read_reply
from tests.fakes.raw_http import open_connection
from tests.fakes.until import until
from tests.fakes.worker_bench import GRANT, RUN_ID

POLICY = "version: 1\nname: none\nrules: []\nprofiles:\n  default: []\n"
SCOPE = WorkspaceScopeModel(workspace_root="/srv/run", allowed_paths=("/srv/run",))


@pytest.fixture
async def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Embedded]:
    """`request.param`: another policy."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(getattr(request, "param", POLICY))
    monkeypatch.setenv("PALYRA_HOME", str(tmp_path / "home"))
    installation = Installation.of_environment()
    async with embedded(installation, EmbeddedSettings(policy_file=policy)) as running:
        yield running


async def opened(place: Embedded) -> WorkerSession:
    measured = measure("/bin/sh")
    launcher = SigningKey.generate()
    public_key = base64.b64encode(launcher.public_key).decode()
    await place.fleet.enrol_launcher("ops", EnrolKeyRequest(name="tests", public_key=public_key))
    values = ReferenceValues(
        image_digests_sha256=(measured.image_digest_sha256,),
        build_digests_sha256=(measured.build_digest_sha256,),
        artifact_digests_sha256=(measured.artifact.digest_sha256,),
    )
    await place.fleet.add_reference_values("ops", values)
    await place.fleet.create_grant("ops", GRANT)
    worker_id = str(ULID())
    settings = SessionSettings(
        fleet=Path(place.note.fleet_socket),
        proxy_address=place.note.proxy,
        launcher=Launcher(launcher),
        identity=WorkerIdentity(worker_id, f"worker:{worker_id}"),
    )
    return await WorkerSession.open(settings, measured)


async def test_a_lease_is_known_to_the_proxy_before_and_after_its_worker_proves_itself_again(
    place: Embedded,
) -> None:
    async with await opened(place) as session:
        lease = await session.take_lease(RUN_ID, SCOPE, 60_000)
        await session.start_lease()

        async def known(secret: str = lease.egress_secret) -> LeaseCheck:
            return await wait_until_known(
                place.note.proxy, lease.lease_id, secret, LoopTime(), within_ms=60_000
            )

        assert await known() is LeaseCheck.KNOWN
        await session._standing.prove_again()
        assert await known() is LeaseCheck.KNOWN
        assert not session.stopped.done()
        (listed,) = await place.fleet.leases(10)
        assert (listed.lease_id, listed.state) == (lease.lease_id, "busy")
        await place.fleet.revoke_lease("ops", lease.lease_id, "enough")

        async def is_unknown() -> bool:
            try:
                await wait_until_known(
                    place.note.proxy, lease.lease_id, lease.egress_secret, LoopTime(), within_ms=1
                )
            except LeaseNotKnown:
                return True
            return False

        await until("the proxy knows that it is over", is_unknown)


async def test_another_secret_is_not_the_lease(place: Embedded) -> None:
    async with await opened(place) as session:
        lease = await session.take_lease(RUN_ID, SCOPE, 60_000)
        with pytest.raises(LeaseNotKnown, match=r"it said 40[37]"):
            await wait_until_known(
                place.note.proxy, lease.lease_id, "x" * 43, LoopTime(), within_ms=1
            )


def demanding(what: str) -> str:
    return f"version: 1\nname: d\nprofiles: {{default: {{rules: [], requires: {{{what}}}}}}}\n"


_IMAGE = write_digest(measure("/bin/sh").image_digest_sha256)
_ARTIFACT = write_digest(measure("/bin/sh").artifact.digest_sha256)
_MET = "egress.host_not_allowed"  # the profile holds, and has no rule
_UNMET = "egress.profile_requirements"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (demanding("binding_level: observed"), _MET),
        (demanding("binding_level: enforced"), _UNMET),  # this one is not isolated
        (demanding(f"image_digests: ['{_IMAGE}'], artifact_digests: ['{_ARTIFACT}']"), _MET),
        (demanding(f"image_digests: ['{_ARTIFACT}']"), _UNMET),
        (demanding("capabilities: [gpu]"), _UNMET),
    ],
    indirect=["place"],
)
async def test_a_profile_holds_for_what_the_fleet_verified_also_after_a_new_proof(
    place: Embedded, reason: str
) -> None:
    async with await opened(place) as session:
        lease = await session.take_lease(RUN_ID, SCOPE, 60_000)
        await session.start_lease()
        await wait_until_known(
            place.note.proxy, lease.lease_id, lease.egress_secret, LoopTime(), within_ms=60_000
        )

        async def told() -> str:
            reader, writer = await open_connection(f"http://{place.note.proxy}")
            credentials = basic(lease.lease_id, lease.egress_secret)
            writer.write(
                "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n"
                f"Proxy-Authorization: {credentials}\r\n\r\n".encode()
            )
            reply = await read_reply(reader)
            writer.close()
            assert reply is not None and reply.status == 403
            return reply.reason

        assert await told() == reason
        await session._standing.prove_again()
        assert await told() == reason
