"""Fleet and proxy as two programs on one installation, enrolled by hand as an operator would."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.place import EGRESS, FLEET, FREE, PUPPET, Place, Puppet, ask_proxy, labelled
from tests.e2e.programs import Program
from tests.fakes.proxy_harness import LEASE, SECRET
from tests.fakes.until import until

PROXY_NAME = "proxy-apart"


@dataclass(slots=True)
class Apart:
    """The two programs. `proxy_url` changes with every start of the proxy."""

    place: Place
    fleet: Program
    proxy: Program

    @property
    def proxy_url(self) -> str:
        return labelled(self.proxy, "proxy")

    @property
    def state(self) -> Path:
        return self.place.directory / "proxy"

    async def has_heard(self) -> bool:
        """Whether the proxy has a fresh view: a stranger is refused for what it is."""
        stranger = f"http://{LEASE}:{SECRET}@proxy.example"
        reply = await ask_proxy(self.proxy_url, "http://api.example/", stranger)
        return reply is not None and reply.reason == "egress.no_lease"

    async def restart_fleet(self) -> None:
        self.fleet = await start_fleet(self.place)

    async def restart_proxy(self) -> None:
        self.proxy = await start_proxy(self.place)

    async def puppet(self, run_id: str) -> Puppet:
        """A worker by way of `palyra-fleet worker run`, for a run that is granted already."""
        program = await self.place.programs.start(
            *(FLEET, "worker", "run"),
            *("--socket", self.place.home / "run" / "fleet.sock"),
            *("--proxy", self.proxy_url.removeprefix("http://")),
            *("--launcher-key", self.place.directory / "launcher.key"),
            *("--run-id", run_id),
            *("--ca", labelled(self.proxy, "worker CA")),
            *("--ca-bundle", labelled(self.proxy, "worker bundle")),
            *("--", sys.executable, PUPPET),
            environment=self.place.worker_environment,
            with_input=True,
        )
        return await Puppet.of(program)

    async def granted(self, run_id: str, profile: str = "api") -> None:
        await self.command(
            *("grant", "create", run_id, "--tool", "puppet", "--principal", "tests"),
            *("--profile", profile),
        )

    async def command(self, *arguments: str | Path) -> str:
        """A command of the fleet that must succeed; what it printed."""
        done = await self.place.fleet(*arguments)
        assert done.code == 0, done.said
        return done.out.strip()


async def start_fleet(place: Place) -> Program:
    program = await place.programs.start(
        *(FLEET, "serve", "--admin", FREE), environment=place.environment
    )
    await until("the fleet serves", lambda: "operator token" in program.err.text)
    return program


async def start_proxy(place: Place, *, policy: Path | None = None, name: str = "") -> Program:
    """The proxy; or another with this name and policy, and its state in a folder of its name."""
    program = await place.programs.start(
        *(EGRESS, "proxy", "serve", *place.proxy_arguments(policy=policy)),
        *("--state-dir", place.directory / (name or "proxy"), "--name", name or PROXY_NAME),
        *("--fleet-socket", place.home / "run" / "fleet.sock"),
        environment=place.environment,
    )
    await program.says("worker bundle")
    return program


async def set_up_apart(place: Place) -> Apart:
    """Both programs running, the proxy and a launcher enrolled, the puppet's program accepted."""
    key, launcher, fleet = await asyncio.gather(
        place.egress("proxy", "key", "--state-dir", place.directory / "proxy"),
        place.fleet("launcher", "key", place.directory / "launcher.key"),
        start_fleet(place),
    )
    assert (key.code, launcher.code) == (0, 0), key.err + launcher.err
    apart = Apart(place, fleet, await start_proxy(place))
    await asyncio.gather(
        apart.command("proxy", "enrol", PROXY_NAME, key.out.strip()),
        apart.command("launcher", "enrol", "launcher-apart", launcher.out.strip()),
        apart.command("reference", "add", "--measure", sys.executable),
        apart.granted("run-1"),
    )
    await until("the proxy has heard the fleet", apart.has_heard)
    return apart
