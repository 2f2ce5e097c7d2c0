"""The enforcement inside a real `mitmdump` process, and what cannot be done to it there."""

import asyncio
from pathlib import Path

import pytest

from tests.addons.running_mitmdump import READY_WITHIN_S, mitmdump
from tests.fakes.process_limits import NO_CORE_FILES, core_limit
from tests.fakes.proxy_harness import basic
from tests.fakes.until import until

HOSTILE_ADDON = """\
from mitmproxy import http
from mitmproxy.exceptions import AddonHalt

def requestheaders(flow):
    flow.request.headers.pop("proxy-authorization", None)
    raise AddonHalt()

def request(flow):
    flow.request.path = "/changed"

def next_layer(nextlayer):
    raise RuntimeError("hostile")
"""


BROKEN_OPENING = """\
from palyra_egress.proxy.egress_proxy import Enforcement

def fail(settings):
    raise ValueError("hunter2")

Enforcement.open = fail
"""


SETS_WHILE_IT_RUNS = """\
import asyncio
from pathlib import Path

from mitmproxy import ctx, exceptions

async def set_later():
    while not (Path(__file__).parent / "go").exists():
        await asyncio.sleep(0.05)
    for name in ("palyra_silence", "palyra_forbid"):
        try:
            ctx.options.update(**{name: "1"})
        except exceptions.OptionsError as error:
            print("not set:", error, flush=True)

def running():
    global task
    task = asyncio.create_task(set_later())
"""


async def test_a_script_in_mitmdump_enforces_like_the_product(tmp_path: Path):
    async with mitmdump(tmp_path) as running:
        await running.until_ready()
        nobody = await running.ask("/a", None)
        assert nobody is not None and (nobody.status, nobody.reason) == (407, "egress.no_identity")
        assert running.upstream.received == b""
        allowed = await running.ask("/b", basic())
        assert allowed is not None and allowed.status == 200
        assert running.upstream.heads == [b"GET /b HTTP/1.1"]


async def test_a_script_in_mitmdump_leaves_no_core_file(tmp_path: Path):
    async with mitmdump(tmp_path) as running:
        await running.until_ready()
        assert core_limit(running.process.pid) in NO_CORE_FILES


@pytest.mark.parametrize("deed", ["edited", "broken", "deleted"])
async def test_a_script_that_is_edited_broken_or_deleted_opens_nothing(tmp_path: Path, deed: str):
    async with mitmdump(tmp_path) as running:
        await running.until_ready()
        match deed:
            case "edited":
                running.script.write_text(running.script.read_text() + "\n# edited\n")
            case "broken":
                running.script.write_text("this is not Python\n")
            case _:
                running.script.unlink()
        for _ in range(25):  # mitmdump looks at its scripts once a second
            nobody = await running.ask("/a", None)
            assert nobody is None or nobody.status == 407
            await asyncio.sleep(0.1)
        assert running.upstream.received == b""
        allowed = await running.ask("/b", basic())
        assert allowed is None or allowed.status == 200


async def test_a_hostile_addon_before_ours_gets_nothing_through(tmp_path: Path):
    hostile = tmp_path / "hostile.py"
    hostile.write_text(HOSTILE_ADDON)
    async with mitmdump(tmp_path, "-s", str(hostile)) as running:
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                try:
                    reply = await running.ask("/a", basic())
                except OSError:
                    await asyncio.sleep(0.1)
                    continue
                if reply is not None and reply.status == 407:
                    break
                await asyncio.sleep(0.1)
        assert running.upstream.connections == 0


async def test_without_its_settings_mitmdump_stops_instead_of_forwarding(tmp_path: Path):
    async with mitmdump(tmp_path, without="palyra_policy") as running:
        async with asyncio.timeout(READY_WITHIN_S):
            await running.process.wait()
        assert running.upstream.connections == 0


async def test_a_source_of_secrets_that_cannot_work_stops_mitmdump_too(tmp_path: Path):
    half = ("--set", "palyra_kv_url=https://vault.example")
    async with mitmdump(tmp_path, *half) as running:
        async with asyncio.timeout(READY_WITHIN_S):
            await running.process.wait()
        assert running.upstream.connections == 0


async def test_secrets_are_set_up_by_options(tmp_path: Path):
    token = tmp_path / "kv-token"
    token.write_text("hvs.token-of-the-test")
    token.chmod(0o600)
    chosen = {
        "palyra_secrets_dir": tmp_path,
        "palyra_secret_env": "ONE, TWO",
        "palyra_kv_url": "http://127.0.0.1:9",
        "palyra_kv_token_file": token,
        "palyra_kv_v1_mounts": "old",
    }
    sets = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
    async with mitmdump(tmp_path, *sets) as running:
        await running.until_ready()


async def test_deadlines_are_set_by_options(tmp_path: Path):
    chosen = ("--set", "palyra_answer_within=1", "--set", "palyra_silence=900")
    async with mitmdump(tmp_path, *chosen) as running:
        await running.until_ready()

        async def silent(_head: object, _writer: object) -> None:
            return

        running.upstream.respond = silent
        late = await running.ask("/late", basic())
        assert late is not None and (late.status, late.reason) == (504, "egress.upstream_timeout")
        assert running.upstream.heads[-1] == b"GET /late HTTP/1.1"


@pytest.mark.parametrize(
    ("set_to", "told"),
    [
        ("palyra_silence=0", "palyra_silence: '0'; expected whole seconds from 1 to 43200"),
        ("palyra_forbid=here:80", "palyra_forbid: 'here:80'; expected IP:PORT"),
    ],
)
async def test_an_option_that_is_none_stops_mitmdump_and_is_told(
    tmp_path: Path, set_to: str, told: str
):
    async with mitmdump(tmp_path, "--set", set_to) as running:
        async with asyncio.timeout(READY_WITHIN_S):
            await running.process.wait()
        assert told in running.said
        assert running.upstream.connections == 0


async def test_an_option_that_is_set_while_it_runs_is_refused_and_told(tmp_path: Path):
    setter = tmp_path / "setter.py"
    setter.write_text(SETS_WHILE_IT_RUNS)
    async with mitmdump(tmp_path, "-s", str(setter)) as running:
        await running.until_ready()
        (tmp_path / "go").touch()
        await until("it was told", lambda: running.said.count("not set: ") == 2)
        assert "not set: palyra_silence is read when mitmproxy starts" in running.said
        assert "not set: palyra_forbid is read when mitmproxy starts" in running.said
        running.script.write_text(running.script.read_text() + "\n")  # is loaded again
        await until("it was loaded again", lambda: running.said.count("Loading script") > 2)
        refused = await running.ask("/x", None)
        assert refused is not None and refused.status == 407
        assert "Addon error" not in running.said


async def test_of_a_fault_that_nobody_expects_mitmdump_is_told_no_text(tmp_path: Path):
    broken = tmp_path / "broken.py"
    broken.write_text(BROKEN_OPENING)
    async with mitmdump(tmp_path, "-s", str(broken)) as running:
        async with asyncio.timeout(READY_WITHIN_S):
            await running.process.wait()
        assert "cannot be opened, so mitmproxy stops: ValueError at " in running.said
        assert "hunter2" not in running.said
