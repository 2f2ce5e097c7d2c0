"""What the commands of operators answer as JSON where somebody decides.

One story, of a fleet where two persons release: a run is placed on a worker that waits, and its
lease revoked; a clean-up fails, one person asks for the release and another approves it; a machine
that wants to pair is turned away; another is let do what it asks for, and then is not.
"""

import json
from typing import Final

import pytest

from palyra_fleet.cli.place import Home
from palyra_fleet.node_agent.channel import open_channel
from palyra_fleet.node_agent.material import AgentHome, NodeMaterial
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import CleanupReport
from palyra_fleet.wire.protobuf import common_pb2, node_pb2, node_pb2_grpc
from palyra_fleet.worker.launcher import Launcher, WorkerIdentity, measure
from palyra_fleet.worker.session import SessionSettings, WorkerSession
from palyra_fleet.worker.workspace import Workspace
from tests.fakes.receipt_proxy import receipt_proxy
from tests.fleet.cli.conftest import Shell, running, shell
from tests.fleet.cli.test_commands import enrol_everything
from tests.fleet.cli.test_placement_commands import serve_command
from tests.golden.fleet_story import BECAUSE, WORKER, Story, pairing, story
from tests.golden.test_roles import NODES
from tests.golden.transcript import compare

__all__ = ["shell", "story"]
UNCLEAN: Final = CleanupReport(workspace_removed=True, processes_ended=False, secrets_removed=True)
OPENS: Final = "desktop.open_url"
"""Acts on somebody's screen, so a node that asks for it waits for an operator."""

WAITS: Final = ("request_id", "awaiting_local_mediation", "node", "asked")


@pytest.mark.e2e
async def test_every_decision_of_operators_answers_json_that_was_read_and_found_good(
    shell: Shell, story: Story
) -> None:
    async with running(shell, *NODES, "--two-person-release") as said:
        proxy_key = SigningKey.generate()
        await enrol_everything(shell, proxy_key, "sh")
        async with receipt_proxy(proxy_key) as proxy:
            await a_run_that_is_placed(story, shell, proxy.address)
            await two_persons(story, shell, proxy.address)
        await a_machine_that_is_turned_away(story, shell, said)
        await what_a_node_asks_for(story, shell, said)
    compare("fleet-decisions", story.text())


async def a_run_that_is_placed(story: Story, shell: Shell, proxy: str) -> None:
    story.heading("a run is placed on a worker that waits, and its lease revoked")
    worker = await shell.start(*serve_command(shell, proxy, "sh", "-c", "echo up; exec sleep 600"))
    placed = json.loads(await story.tell("run", "place", "run-1", "--wait", "60"))
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"up\n"
    await story.tell("lease", "revoke", placed["lease_id"], *BECAUSE)
    _, err = await worker.communicate()
    assert b"revoked" in err, err


async def two_persons(story: Story, shell: Shell, proxy: str) -> None:
    story.heading("a clean-up fails; one asks for the release of the worker, another approves it")
    token = shell.home / "anna.token"
    token.write_text(
        await story.aside("principal", "create", "anna", "--role", "approver", *BECAUSE)
    )
    settings = SessionSettings(
        fleet=Home(shell.home).socket_path,
        proxy_address=proxy,
        launcher=Launcher(SigningKey.load_or_create(shell.home / "launcher.pem")),
        identity=WorkerIdentity(WORKER, f"worker:{WORKER}"),
    )
    grant = ("--tool", "sh", "--principal", "ops", "--profile", "default")
    await story.aside("grant", "create", "run-2", *grant)
    measured = measure("sh")
    async with await WorkerSession.open(settings, measured) as session:
        scope = Workspace.create(shell.home).scope()
        await session.take_lease("run-2", scope, 60_000)
        await session.start_lease()
        assert (await session.complete_lease(UNCLEAN)).state == "cleanup_failed"
    async with await WorkerSession.open(settings, measured) as session:
        assert (await session.stopped).kind == "quarantined"  # and has shown newer evidence
    await story.tell("worker", "release", WORKER, *BECAUSE, code=1)
    asked = json.loads(await story.tell("worker", "request-release", WORKER, *BECAUSE))
    await story.tell("worker", "requests")
    await story.tell("worker", "approve-release", asked["release_id"], *BECAUSE, code=1)
    await story.tell("worker", "withdraw-release", asked["release_id"], *BECAUSE)
    asked = json.loads(await story.tell("worker", "request-release", WORKER, *BECAUSE))
    as_anna = ("--token-file", str(token))
    await story.tell("worker", "approve-release", asked["release_id"], *BECAUSE, *as_anna)
    async with await WorkerSession.open(settings, measured):  # its work counts as failed still
        await story.tell("worker", "reverify", WORKER, *BECAUSE)


async def a_machine_that_is_turned_away(story: Story, shell: Shell, said: dict[str, str]) -> None:
    story.heading("a machine wants to pair, and is turned away")
    code = await story.aside("node", "code")
    async with pairing(shell, said, code) as installing:
        await story.tell("node", "reject", await story.wants_to_pair(), *BECAUSE)
        assert await installing.wait() == 1


async def what_a_node_asks_for(story: Story, shell: Shell, said: dict[str, str]) -> None:
    story.heading("a node asks for what an operator must agree to")
    home, code = shell.home / "desktop", await story.aside("node", "code")
    async with pairing(shell, said, code, "--kind", "desktop", "--home", str(home)) as installing:
        await story.aside("node", "approve", await story.wants_to_pair(), *BECAUSE)
        assert await installing.wait() == 0
    material = AgentHome(home).load()
    certificate = material.newest
    address, roots = material.node_address, material.trusted_roots_pem
    async with open_channel(address, roots, certificate) as channel:
        node = Desktop(material, node_pb2_grpc.NodeServiceStub(channel))
        await node.register()
        asking = spawn(node.asks(), "the node of the story")
        request = await story.first(*WAITS)
        await story.tell("node", "asked")
        await story.tell("node", "refuse", request, *BECAUSE)
        assert not (await asking).success
        asking = spawn(node.asks(), "the node of the story")
        await story.tell("node", "allow", await story.first(*WAITS), *BECAUSE)
        await node.does_what_is_next()
        assert (await asking).success
        await story.tell("node", "asked")


class Desktop:
    """A paired node that asks for what acts on its own screen, in calls of its own: the agent of
    this project offers nothing of the kind."""

    def __init__(self, material: NodeMaterial, calls: node_pb2_grpc.NodeServiceStub) -> None:
        self._id = common_pb2.CanonicalId(ulid=material.device_id)
        self._calls = calls

    async def register(self) -> None:
        offered = [node_pb2.DeviceCapability(name=OPENS, available=True)]
        await self._calls.RegisterNode(
            node_pb2.RegisterNodeRequest(
                v=1, device_id=self._id, platform="desktop", capabilities=offered
            )
        )

    async def asks(self) -> node_pb2.ExecuteCapabilityResponse:
        """Ask to open a page; what comes of it, once somebody decided."""
        return await self._calls.ExecuteCapability(
            node_pb2.ExecuteCapabilityRequest(
                v=1,
                device_id=self._id,
                capability=OPENS,
                input_json=b'{"url": "https://docs.example/"}',
            )
        )

    async def does_what_is_next(self) -> None:
        """Beat until a request comes back, and say that it is done."""
        stream = self._calls.StreamNodeEvents()
        while True:
            await stream.write(self._event("node.heartbeat", b"{}"))
            heard = await stream.read()
            assert isinstance(heard, node_pb2.NodeEventResponse)
            if heard.HasField("dispatch"):
                break
        done = {"request_id": heard.dispatch.request_id.ulid, "success": True, "output_json": {}}
        await stream.write(self._event("capability.result", json.dumps(done).encode()))
        await stream.read()
        stream.cancel()

    def _event(self, name: str, payload: bytes) -> node_pb2.NodeEventRequest:
        return node_pb2.NodeEventRequest(
            v=1, device_id=self._id, event_name=name, payload_json=payload
        )
