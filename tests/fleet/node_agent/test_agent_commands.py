"""`palyra-fleet node …` as programs of their own, against a node service on real sockets."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from palyra_fleet.identity.records import CodeMethod
from palyra_fleet.node_agent.material import AgentHome
from palyra_fleet.tasks import spawn
from tests.fakes.node_world import NodeWorld, node_world
from tests.fakes.until import until
from tests.fleet.node_agent.test_agent import AT_ONCE, decide

FLEET = Path(sys.executable).parent / "palyra-fleet"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    async with node_world(tmp_path / "fleet", identity=AT_ONCE) as fresh:
        (tmp_path / "ca.pem").write_text(fresh.authority.trust_bundle_pem)
        yield fresh


@dataclass
class Commands:
    """The commands on one directory."""

    directory: Path
    world: NodeWorld

    @property
    def home(self) -> AgentHome:
        return AgentHome(self.directory / "agent")

    async def start(self, verb: str, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(str(FLEET), "node", verb, "--home", str(self.home.directory), *more),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PALYRA_HOME": str(self.directory / "home")},
        )

    async def ended(self, verb: str, *more: str, given: str = "") -> tuple[int, str, str]:
        process = await self.start(verb, *more)
        async with asyncio.timeout(60):
            out, err = await process.communicate(given.encode())
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def install(self, code: str, *more: str) -> tuple[int, str, str]:
        places = (
            *("--enrolment", f"127.0.0.1:{self.world.port('enrolment')}"),
            *("--node", f"127.0.0.1:{self.world.port('node')}"),
            *("--ca", str(self.directory / "ca.pem")),
        )
        return await self.ended("install", *places, *more, given=code + "\n")

    async def paired(self) -> str:
        minted = await self.world.pairing.mint_code(CodeMethod.PIN, "anna")
        deciding = spawn(decide(self.world, approve=True), "operator")
        code, out, err = await self.install(minted.code)
        await deciding
        assert code == 0, err
        return out


@pytest.fixture
def commands(tmp_path: Path, world: NodeWorld) -> Commands:
    return Commands(tmp_path, world)


async def test_a_node_from_its_first_minute_to_its_last(commands: Commands) -> None:
    out = await commands.paired()
    device = commands.home.load().device_id
    assert f"paired as {device}" in out
    process = await commands.start("run")
    nodes = commands.world.state.nodes
    await until(
        "the node has beaten",
        lambda: device in nodes and nodes[device].last_event_name == "node.heartbeat",
    )
    code, status, _ = await commands.ended("status", "-o", "json")
    told = json.loads(status)
    assert (code, told["device_id"], told["running"]) == (0, device, True)
    assert told["last_state"] == "connected"
    process.send_signal(signal.SIGTERM)
    _, said = await process.communicate()
    assert process.returncode == 0, said
    assert json.loads((await commands.ended("status", "-o", "json"))[1])["running"] is False
    assert nodes[device].last_event_name == "node.stopping"
    code, out, err = await commands.ended("uninstall")
    assert (code, out.strip()) == (0, "revoked and forgotten"), err
    assert device not in commands.world.state.nodes
    assert not commands.home.is_paired
    code, _, err = await commands.ended("run")
    assert (code, "is not paired" in err) == (2, True)


async def test_the_code_and_the_keys_stand_in_no_output(commands: Commands) -> None:
    minted = await commands.world.pairing.mint_code(CodeMethod.QR, "anna")
    deciding = spawn(decide(commands.world, approve=True), "operator")
    code, out, err = await commands.install(minted.code)
    await deciding
    assert code == 0, err
    assert minted.code not in out + err
    assert "identity fingerprint" in err and "transcript hash" in err
    assert "PRIVATE" not in out + err


async def test_a_rejection_is_told_in_three_lines_and_nothing_is_kept(commands: Commands) -> None:
    minted = await commands.world.pairing.mint_code(CodeMethod.PIN, "anna")
    deciding = spawn(decide(commands.world, approve=False), "operator")
    code, _, err = await commands.install(minted.code)
    await deciding
    assert code == 1
    assert "this node was not paired" in err and "an operator rejected it" in err
    assert not commands.home.is_paired


async def test_a_wrong_code_a_bad_ca_and_a_fleet_that_is_not_there_are_told(
    commands: Commands, tmp_path: Path
) -> None:
    code, _, err = await commands.install("000000")
    assert (code, "pairing code is missing or expired" in err) == (1, True)
    code, _, err = await commands.install("hello")
    assert (code, "that is no code: expected 6 digits" in err) == (1, True)
    (tmp_path / "ca.pem").write_text("hello")
    code, _, err = await commands.install("000000")
    assert (code, "holds no PEM certificate" in err) == (2, True)


async def test_a_paired_node_is_not_paired_again_by_accident(commands: Commands) -> None:
    await commands.paired()
    before = commands.home.load()
    code, _, err = await commands.install("000000")
    assert (code, "is paired already" in err) == (2, True)
    assert commands.home.load() == before


async def test_two_agents_do_not_share_a_directory(commands: Commands) -> None:
    await commands.paired()
    process = await commands.start("run")
    await until("its status is written", commands.home.status_file.exists)
    code, _, err = await commands.ended("run")
    assert (code, "another agent works in this directory" in err) == (2, True)
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0


async def test_a_killed_agent_goes_on_where_it_was(commands: Commands) -> None:
    await commands.paired()
    device = commands.home.load().device_id
    for _ in range(3):
        process = await commands.start("run")
        before = commands.world.state.nodes.get(device)
        seen = 0 if before is None else before.last_seen_at_unix_ms
        await until(
            "the node is seen again",
            lambda seen=seen: (
                device in commands.world.state.nodes
                and commands.world.state.nodes[device].last_seen_at_unix_ms > seen
            ),
        )
        process.kill()
        await process.communicate()
    assert commands.home.load().device_id == device


async def test_a_revoked_agent_ends_with_three_lines_and_its_status_says_so(
    commands: Commands,
) -> None:
    out = await commands.paired()
    assert f"node run --home {commands.home.directory}`" in out
    device = commands.home.load().device_id
    process = await commands.start("run")
    nodes = commands.world.state.nodes
    await until(
        "the node has beaten",
        lambda: device in nodes and nodes[device].last_event_name == "node.heartbeat",
    )
    await commands.world.identity.revoke_device(device, "sold", "anna")
    _, said = await process.communicate()
    connected, *told = said.decode().splitlines()
    assert (process.returncode, connected.startswith("connected to ")) == (1, True)
    assert told == [
        "palyra-fleet: the fleet refuses this node",
        "  why: node RPC client certificate fingerprint is revoked; pair it again",
        "  do:  `palyra-fleet node install --again` with a new code",
    ]
    status = json.loads((await commands.ended("status", "-o", "json"))[1])
    assert (status["last_state"], status["running"]) == ("refused", False)


async def test_forgetting_locally_asks_nobody(commands: Commands) -> None:
    await commands.paired()
    device = commands.home.load().device_id
    code, out, _ = await commands.ended("uninstall", "--local-only")
    assert (code, out.strip()) == (0, "forgotten")
    assert commands.world.identity.device(device) is not None
    assert [file.name for file in commands.home.directory.iterdir()] == ["agent.lock"]
