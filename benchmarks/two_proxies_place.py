"""Fleet, two proxies and a worker's host for a benchmark: real programs, paired, over mutual TLS.

Everything is on loopback; each "machine" is a directory. What needs an operator (codes, approvals,
enrolments) goes through the admin API with the operator's token.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.client import OperatorClient
from palyra_fleet.node_agent.keeper import DeviceKeeper
from palyra_fleet.node_agent.material import AgentHome
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import ReferenceValues
from palyra_fleet.wire.node_models import ApproveDevice, PairingCodeRequest
from palyra_fleet.worker.launcher import Measurement, measure

BIN: Final = Path(sys.executable).parent
HOST: Final = "api.example"
FREE: Final = "127.0.0.1:0"
WITHIN_S: Final = 60.0
_POLICY: Final = """\
version: 1
name: bench
rules:
  - {{id: api, hosts: [api.example], ports: [{port}], methods: [GET], private: [127.0.0.0/8]}}
profiles:
  bench: [api]
violations:
  quarantine: [metadata_target]
"""


@dataclass(frozen=True, slots=True)
class TwoProxies:
    """What runs. `proxies` are (address, port); `keeper` is the worker host's pairing."""

    url: str
    operator: OperatorClient
    proxies: tuple[tuple[str, int], tuple[str, int]]
    ca_files: tuple[Path, Path]
    keeper: DeviceKeeper
    launcher: SigningKey
    measured: Measurement


@dataclass(slots=True)
class _Program:
    """A program, and the lines it said."""

    process: asyncio.subprocess.Process
    lines: list[str]

    async def says(self, label: str) -> str:
        """What comes after `label` on a line that it says, now or later."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                for line in self.lines:
                    if line.startswith(label):
                        return line.removeprefix(label).strip()
                assert self.process.stderr is not None
                said = await self.process.stderr.readline()
                if not said:
                    raise RuntimeError(f"it ended before it said {label!r}: {self.lines}")
                self.lines.append(said.decode().rstrip())


@asynccontextmanager
async def _running(home: Path, *command: str | Path, text: str = "") -> AsyncIterator[_Program]:
    """A program whose output is all on standard error, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", 'exec "$@" 1>&2', "sh"),
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PALYRA_HOME": str(home)},
    )
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    try:
        yield _Program(process, [])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _pair(
    place: Path, operator: OperatorClient, fleet: _Program, kind: str, device: Path
) -> str:
    minted = await operator.mint_pairing_code(PairingCodeRequest(method="qr"))
    command = (
        *(BIN / "palyra-fleet", "node", "install", "--kind", kind, "--home", device),
        *("--enrolment", await fleet.says("nodes that enrol:")),
        *("--node", await fleet.says("nodes:"), "--ca", await fleet.says("the nodes' root:")),
    )
    async with _running(place, *command, text=minted.code + "\n") as install:
        await install.says("waiting for an operator")
        (asked,) = [
            one for one in await operator.pairing_requests() if one.state == "pending_approval"
        ]
        await operator.approve_device(asked.approval_id, ApproveDevice(reason="benchmark"))
        await install.says(f"paired as {asked.device_id}")
    return asked.device_id


@asynccontextmanager
async def two_proxies(
    directory: Path, upstream_port: int, roots_file: Path
) -> AsyncIterator[TwoProxies]:
    """Everything running and enrolled, until the block ends."""
    home = directory / "home"
    policy, hosts = directory / "policy.yaml", directory / "hosts"
    policy.write_text(_POLICY.format(port=upstream_port))
    hosts.write_text(f"127.0.0.1 {HOST}\n")
    async with AsyncExitStack() as running:
        fleet = await running.enter_async_context(
            _running(
                home,
                *(BIN / "palyra-fleet", "serve", "--admin", FREE, "--nodes"),
                *("--enrolment", FREE, "--node", FREE, "--listen", FREE),
            )
        )
        url = await fleet.says("other machines:")
        await fleet.says("operator token:")
        token = (home / "operator.token").read_text().strip()
        operator = OperatorClient((home / "admin.url").read_text().strip(), token)
        running.push_async_callback(operator.close)
        addresses, ca_files = [], []
        for name in ("a", "b"):
            state = directory / name
            await _pair(home, operator, fleet, "proxy", state / "device")
            proxy = await running.enter_async_context(
                _running(
                    home,
                    *(BIN / "palyra-egress", "proxy", "serve", "--state-dir", state),
                    *("--listen", FREE, "--policy", policy, "--hosts-file", hosts),
                    *("--extra-roots", roots_file, "--fleet", url),
                )
            )
            host, _, port = (await proxy.says("proxy")).removeprefix("http://").rpartition(":")
            addresses.append((host, int(port)))
            ca_files.append(Path(await proxy.says("worker CA")))
        device = await _pair(home, operator, fleet, "node", directory / "host")
        await operator.enrol_device("launcher", "launcher-host", device)
        measured = measure(sys.executable)
        await operator.add_reference_values(
            ReferenceValues(
                image_digests_sha256=(measured.image_digest_sha256,),
                build_digests_sha256=(measured.build_digest_sha256,),
                artifact_digests_sha256=(measured.artifact.digest_sha256,),
            )
        )
        await _until_enrolled(operator)
        keeper = DeviceKeeper(AgentHome(directory / "host"))
        yield TwoProxies(
            url,
            operator,
            (addresses[0], addresses[1]),
            (ca_files[0], ca_files[1]),
            keeper,
            keeper.signing_key,
            measured,
        )


async def _until_enrolled(operator: OperatorClient) -> None:
    async with asyncio.timeout(WITHIN_S):
        while len(await operator.enrolments("proxy")) < 2:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.05)
