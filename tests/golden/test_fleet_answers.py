"""What the commands of operators answer as JSON, against a fleet that runs.

One story: a proxy and a launcher are enrolled, a worker runs a program, is stopped, looked at and
let in again, a proxy answers about its policy, a node pairs. Every command that can answer JSON has
a line in it. A refusal is all there is of what two persons release, of `worker reverify`, `lease
revoke`, `run place`, `node reject`, and of what nodes ask approval for.
"""

import asyncio
import base64
import json
from typing import Final

import pytest

from palyra_egress.policy.load import load_policy
from palyra_egress.questions.answering import answer_to
from palyra_egress.questions.standing import Loaded, standing_of
from palyra_fleet.cli.place import Home
from palyra_fleet.client import ProxyClient
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from tests.fakes.receipt_proxy import receipt_proxy
from tests.fakes.until import until
from tests.fleet.cli.conftest import Shell, running, shell
from tests.golden.fleet_story import BECAUSE, WORKER, Story, pairing, story
from tests.golden.test_roles import NODES
from tests.golden.transcript import compare

__all__ = ["shell", "story"]
POLICY: Final = """\
version: 1
name: sample
rules:
  - {id: api, hosts: [api.example], methods: [GET], owner: ops, reason: sample}
profiles: {api: [api]}
"""
SILENT: Final = 69
"""The exit code where a proxy cannot be asked."""


@pytest.mark.e2e
async def test_every_command_of_operators_answers_json_that_was_read_and_found_good(
    shell: Shell, story: Story
) -> None:
    settings = shell.home / "fleet.toml"
    settings.write_text("[attestors.join_token]\n")
    async with running(shell, *NODES, "--settings", str(settings)) as said:
        await enrolments(story, shell)
        proxy_key = await a_worker(story, shell)
        await policies(story, shell, proxy_key)
        await what_was_lent(story)
        await a_node(story, shell, said)
        await people(story)
        await copies(story, shell)
    story.heading("the fleet is stopped")
    await story.tell("snapshot", "restore", str(shell.home / "copy.snapshot"), "--replace")
    compare("fleet-answers", story.text())


async def enrolments(story: Story, shell: Shell) -> None:
    story.heading("enrolments")
    key = base64.b64encode(bytes(31) + b"\x01").decode()
    await story.tell("proxy", "enrol", "proxy-9", key)
    await story.tell("proxy", "revoke", "proxy-9", *BECAUSE)
    await story.tell("proxy", "list")
    key = base64.b64encode(bytes(31) + b"\x02").decode()
    await story.tell("launcher", "enrol", "launcher-9", key)
    await story.tell("launcher", "revoke", "launcher-9", *BECAUSE)
    await story.tell("launcher", "list")
    await story.tell("reference", "add", "--image", "0" * 64)
    await story.tell("reference", "list")
    await story.tell("reference", "withdraw", "--image", "0" * 64, *BECAUSE)
    await story.tell("event", "tail", "--lines", "1")
    minted = json.loads(await story.tell("join-token", "mint", "sample", *BECAUSE))
    await story.tell("join-token", "list")
    await story.tell("join-token", "revoke", WORKER, *BECAUSE, code=1)
    await story.tell("join-token", "revoke", minted["join_token"]["token_id"], *BECAUSE)


async def a_worker(story: Story, shell: Shell) -> SigningKey:
    """Gives the key of its proxy."""
    story.heading("a worker: it runs, is stopped, looked at and let in again")
    proxy_key = SigningKey.generate()
    public = base64.b64encode(proxy_key.public_key).decode()
    await shell("proxy", "enrol", "proxy-1", public)
    launcher = await shell("launcher", "key", str(shell.home / "launcher.pem"))
    await shell("launcher", "enrol", "launcher-1", launcher.out.strip())
    await shell("reference", "add", "--measure", "sh")
    await story.tell(
        *("grant", "create", "run-1", "--tool", "sh", "--principal", "ops", "--profile", "api")
    )

    async def is_met() -> bool:
        shown = (await shell("worker", "show", WORKER, "-o", "json")).out
        return json.loads(shown)["demanded"] is None

    async with receipt_proxy(proxy_key) as proxy:
        ca = str(shell.home / "ca.pem")
        run = (
            *("worker", "run", "--proxy", proxy.address, "--run-id", "run-1"),
            *("--worker-id", WORKER, "--launcher-key", str(shell.home / "launcher.pem")),
            *("--ca-bundle", ca, "--ca", ca, "--", "sh", "-c", "echo up; exec sleep 600"),
        )
        process = await shell.start(*run)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        await story.tell("lease", "list")
        await story.tell("worker", "reattest", WORKER, "--new-key", *BECAUSE, "--within-s", "600")
        await until("the worker has shown what was demanded", is_met)
        await story.tell("worker", "cordon", WORKER, *BECAUSE)
        await story.tell("worker", "uncordon", WORKER, *BECAUSE)
        await story.tell("worker", "quarantine", WORKER, *BECAUSE)
        await process.communicate()
        await story.tell("worker", "list")
        await story.tell("worker", "list", "--state", "available", "--attestor", "launcher")
        await story.tell("worker", "list", "--capability", "gpu")
        await story.tell("worker", "label", WORKER, "zone=a", "rack-", *BECAUSE)
        await story.tell("worker", "list", "--label", "zone=b", "--label", "zone")
        await story.tell("worker", "show", WORKER)
        await story.tell("worker", "release", WORKER, *BECAUSE, code=1)
        await story.tell("worker", "request-release", WORKER, *BECAUSE, code=1)
        await story.tell("worker", "requests")
        await story.tell("worker", "approve-release", WORKER, *BECAUSE, code=1)
        await story.tell("worker", "withdraw-release", WORKER, *BECAUSE, code=1)
        await story.tell("worker", "reverify", WORKER, *BECAUSE, code=1)
        await story.tell("worker", "reattest", WORKER, "--new-key", *BECAUSE, code=1)
        again = await shell.start(*run)  # it attests anew, and stays out until it is released
        await again.communicate()
        await story.tell("worker", "release", WORKER, *BECAUSE)
    await story.tell("worker", "drain", WORKER, *BECAUSE)
    await story.tell("worker", "evict", WORKER, *BECAUSE, "--dry-run")
    await story.tell("worker", "ban", WORKER, *BECAUSE)
    await story.tell("violation", "list")
    return proxy_key


async def policies(story: Story, shell: Shell, proxy_key: SigningKey) -> None:
    """The proxy of this story only signs receipts, so it is silent first; then it tells."""
    policy = shell.home / "egress.yaml"
    policy.write_text(POLICY)
    asked = ("--profile", "api", "--proxy", "proxy-1")
    story.heading("policies, where the proxy cannot be asked")
    await story.tell("policy", "list")
    await story.tell("policy", "show", "proxy-1", code=SILENT)
    await story.tell("policy", "explain", "https://api.example/", *asked, code=SILENT)
    await story.tell("policy", "check", str(policy), code=SILENT)
    story.heading("policies, where it answers")
    async with ProxyClient(Home(shell.home).socket_path, proxy_key) as client:
        heard = asyncio.Event()
        telling = spawn(tells_its_policy(client, heard), "the proxy of the story")
        await heard.wait()
        await story.tell("policy", "list")
        await story.tell("policy", "show", "proxy-1")
        await story.tell("policy", "explain", "https://api.example/", *asked)
        await story.tell("policy", "explain", "https://paste.example/", *asked, code=1)
        policy.write_text(POLICY.replace("[GET]", "[GET, PUT]"))
        await story.tell("policy", "check", str(policy))
        telling.cancel()
        await asyncio.wait({telling})


async def tells_its_policy(client: ProxyClient, heard: asyncio.Event) -> None:
    """Answer what operators ask about `POLICY`, as a proxy that has it in force."""
    loaded = Loaded(load_policy(POLICY.encode(), "egress.yaml"), 1_700_000_000_000)
    while True:
        await client.beat(0, loaded.policy.digest)
        question = await client.next_question(standing_of(loaded), 1000 if heard.is_set() else 0)
        heard.set()
        if question is not None:
            await client.answer_question(answer_to(loaded, question, now_unix_ms()))


async def what_was_lent(story: Story) -> None:
    story.heading("grants, leases, events")
    await story.tell("grant", "list")
    await story.tell("approval", "list")
    await story.tell("grant", "withdraw", WORKER, *BECAUSE, code=1)
    asked = ("--tool", "sh", "--principal", "ops", "--profile", "api")
    grant = json.loads(await story.tell("grant", "create", "run-2", *asked))
    await story.tell("grant", "withdraw", grant["grant_id"], *BECAUSE)
    await story.tell("lease", "revoke", WORKER, *BECAUSE, code=1)
    await story.tell("run", "place", "run-9", code=1)
    await story.tell("run", "offers")
    await story.tell("unfreeze", "all", *BECAUSE, code=1)
    await story.tell("freeze", "show")
    await story.tell("freeze", "leases", *BECAUSE)
    await story.tell("freeze", "egress", *BECAUSE)
    await story.tell("freeze", "egress", *BECAUSE, code=1)
    await story.tell("unfreeze", "egress", *BECAUSE)
    await story.tell("unfreeze", "egress", *BECAUSE, code=1)
    await story.tell("unfreeze", "all", *BECAUSE)
    await story.tell("event", "verify")


async def a_node(story: Story, shell: Shell, said: dict[str, str]) -> None:
    story.heading("a node: it pairs, is asked, and taken out again")

    async def first_node() -> str:
        nodes = json.loads((await shell("node", "list", "-o", "json")).out)
        return next((node["device_id"] for node in nodes if node["connected"]), "")

    async def is_told() -> bool:
        return '"last_state": "connected"' in (await shell("node", "status", "-o", "json")).out

    code = (await shell("node", "code")).out
    await story.tell("node", "code", "--method", "qr")
    await story.tell("node", "status", code=2)
    async with pairing(shell, said, code) as installing:
        approval = await story.wants_to_pair()
        await story.tell("node", "requests")
        await story.tell("node", "approve", approval, *BECAUSE)
        assert await installing.wait() == 0  # the device has taken what was approved
        await story.tell("node", "reject", approval, *BECAUSE, code=1)
    working = await shell.start("node", "run")
    device = await until("the node is connected", first_node)
    await story.tell("node", "list")
    await story.tell("node", "show", device)
    await story.tell("node", "invoke", device, "echo", "--input", '{"say": "hello"}')
    await until("the agent wrote down that it is connected", is_told)
    await story.tell("node", "status")
    working.terminate()
    await working.communicate()
    await story.tell("node", "asked")
    await story.tell("node", "allow", WORKER, *BECAUSE, code=1)
    await story.tell("node", "refuse", WORKER, *BECAUSE, code=1)
    await story.tell("device", "list")
    await story.tell("device", "rotate", device, *BECAUSE)
    await story.tell("device", "show", device)
    await story.tell("certificate", "list", "--kind", "device")
    await story.tell("device", "revoke", device, *BECAUSE)
    await story.tell("device", "remove", device, *BECAUSE)
    await story.tell("ca", "show")
    await story.tell("ca", "rotate", *BECAUSE)


async def people(story: Story) -> None:
    story.heading("principals")
    await story.tell("principal", "self")
    await story.tell("principal", "create", "vera", "--role", "viewer", *BECAUSE)
    await story.tell("principal", "rotate", "vera", *BECAUSE)
    await story.tell("principal", "list")
    await story.tell("principal", "revoke", "vera", *BECAUSE)


async def copies(story: Story, shell: Shell) -> None:
    story.heading("snapshots")
    file = str(shell.home / "copy.snapshot")
    await story.tell("snapshot", "save", file)
    await story.tell("snapshot", "inspect", file)
    await story.tell("snapshot", "restore", file, code=2)
    await story.tell("snapshot", "take", *BECAUSE)
    await story.tell("snapshot", "list")
