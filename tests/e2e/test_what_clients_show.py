"""The page of what clients show, run: real clients against a real proxy, text by text."""

import asyncio
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.go_client import BUILT_WITHIN_S, go_client
from tests.egress.proxy.lanes import chaos
from tests.fakes.proxy_harness import LEASE, SECRET

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "what-clients-show.md"
WITHIN_S: Final = 60.0
REQUESTS: Final = "import requests, sys; requests.get(sys.argv[1]).raise_for_status()"
HTTPX: Final = "import httpx, sys; httpx.get(sys.argv[1]).raise_for_status()"
URLLIB: Final = "import urllib.request, sys; urllib.request.urlopen(sys.argv[1])"
AIOHTTP: Final = """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession(trust_env=True, raise_for_status=True) as session:
        await session.get(sys.argv[1])
asyncio.run(main())
"""
PIP: Final = (
    *("-m", "pip", "download", "--no-deps", "--retries=0", "--no-cache-dir"),
    "--disable-pip-version-check",
)
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "curl": ("curl", "-sS"),
    "curl -i": ("curl", "-sSi"),
    "wget": ("wget", "-t", "1", "-O", "-"),
    "git": ("git", "ls-remote"),
    "pip": ("python", *PIP),
    "requests": ("python", "-c", REQUESTS),
    "httpx": ("python", "-c", HTTPX),
    "aiohttp": ("python", "-c", AIOHTTP),
    "urllib": ("python", "-c", URLLIB),
    "Go": ("go",),
}


def rows() -> dict[str, tuple[str, str]]:
    """What the page promises: client, then the text for a tunnel and for a request."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {cell[0]: (cell[1].strip("`"), cell[2].strip("`")) for cell in cells}


def command_of(client: str) -> tuple[str, ...]:
    program, *rest = COMMANDS[client]
    if program == "python":
        if importlib.util.find_spec(client) is None:
            pytest.skip(f"{client} is not installed here, so this client was not tried")
        return (sys.executable, *rest)
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here, so this client was not tried")
    return (found, *rest)


def environment(proxy: str) -> dict[str, str]:
    """The caller's, with the proxy's variables and no other proxy setting or configuration."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if "proxy" not in name.lower() and not name.startswith("PIP_")
    }
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "PIP_CONFIG_FILE": os.devnull, "CURL_HOME": "/"}
    return {**kept, **nobody, **dict.fromkeys(names, proxy), "LC_ALL": "C"}


def test_the_page_has_a_row_for_each_client_that_is_run() -> None:
    assert rows().keys() == COMMANDS.keys()


@pytest.mark.timeout(BUILT_WITHIN_S + 2 * WITHIN_S)
@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("client", COMMANDS)
async def test_a_client_shows_what_the_page_says(tmp_path: Path, client: str, scheme: str) -> None:
    texts = rows()[client]
    command = (await go_client(tmp_path),) if client == "Go" else command_of(client)
    async with chaos(tmp_path) as world:
        host, port = world.harness.proxy.address
        process = await asyncio.create_subprocess_exec(
            *(*command, f"{scheme}://nobody.example/x-1-py3-none-any.whl"),
            env=environment(f"http://{LEASE}:{SECRET}@{host}:{port}"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(WITHIN_S):
            said, _ = await process.communicate()
        assert texts[scheme == "http"] in said.decode()
        verdicts = {entry["reason"] for entry in world.harness.verdicts()}
        assert verdicts - {"egress.no_identity"} == {"egress.host_not_allowed"}  # git asks twice
        world.nothing_was_dialled()
