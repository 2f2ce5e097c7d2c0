"""The demo itself: start everything, let a real worker work and misbehave, and tell what happened.

Nothing is simulated: fleet and proxy run in this process with the embedded store, the worker is a
process of its own that attests itself, and what is told comes from the worker's output, the audit
log and the ledger. Any step that is not as it must be ends the demo with an error.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from palyra_egress.audit.reading import entries, verify_file
from palyra_egress.demo.upstream import DemoUpstream, demo_upstream
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.embedded import Embedded, EmbeddedSettings, embedded
from palyra_egress.installation import Installation
from palyra_fleet.cli.place import HOME_VARIABLE, Home
from palyra_fleet.wire.models import EventView, WorkerView

HOST: Final = "packages.example"
REFUSED_URL: Final = "https://paste.example/upload"
WORKER_WITHIN_S: Final = 60.0
POLICY: Final = """\
version: 1
name: demo
rules:
  - id: packages
    hosts: [packages.example]
    ports: [{port}]
    methods: [GET]
    private: [127.0.0.1/32]   # the demo's upstream is on this machine
profiles:
  demo: [packages]
violations:
  quarantine: [metadata_target, private_target]
"""

type Tell = Callable[[str], None]


BY_SIGNAL = 128
"""Exit codes from here on say which signal ended a program."""


class DemoFailed(Exception):
    """A step did not happen as it must; the message says which."""


@dataclass(frozen=True, slots=True)
class _Story:
    tell: Tell
    running: Embedded
    upstream: DemoUpstream
    seen: dict[str, dict[str, Any]]
    exit_code: int


async def play(tell: Tell) -> None:
    """Run the demo in a temporary directory. Raises DemoFailed."""
    with tempfile.TemporaryDirectory(prefix="palyra-demo-") as directory:
        await _play(tell, Path(directory))


async def _play(tell: Tell, directory: Path) -> None:
    upstream_ca = UpstreamCa.create(directory / "upstream")
    async with demo_upstream(upstream_ca.server_context(HOST)) as upstream:
        policy, hosts = directory / "policy.yaml", directory / "hosts"
        policy.write_text(POLICY.format(port=upstream.port), encoding="utf-8")
        hosts.write_text(f"127.0.0.1 {HOST}\n", encoding="utf-8")
        installation = Installation(Home(directory / "home"))
        settings = EmbeddedSettings(policy, hosts_file=hosts, extra_roots_file=upstream_ca.ca_file)
        tell("1. Starting fleet and proxy in one process, with the embedded store")
        async with embedded(installation, settings) as running:
            tell(f"   proxy {running.note.proxy}, admin API {running.admin_url}")
            tell("")
            tell("2. A program is started as a worker: it attests itself, gets a grant and a lease")
            exit_code, seen = await _run_worker(installation, upstream)
            await _Tale(_Story(tell, running, upstream, seen, exit_code)).tell_all()


async def _run_worker(
    installation: Installation, upstream: DemoUpstream
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the program with the ordinary `run` command, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "palyra_egress.cli.main", "run", "--"),
        *(sys.executable, "-m", "palyra_egress.demo.worker_program"),
        *(f"https://{HOST}:{upstream.port}", REFUSED_URL),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, HOME_VARIABLE: str(installation.directory)},
    )
    try:
        async with asyncio.timeout(WORKER_WITHIN_S):
            stdout, stderr = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise DemoFailed("the worker did not end in time") from error
    lines = [json.loads(line) for line in stdout.splitlines() if line.startswith(b"{")]
    seen = {line["step"]: line for line in lines}
    if not seen:
        raise DemoFailed(f"the worker did not run: {stderr.decode(errors='replace').strip()}")
    return process.returncode or 0, seen


@dataclass(frozen=True, slots=True)
class _Tale:
    """Checks each step against what was really seen, and tells it."""

    story: _Story

    async def tell_all(self) -> None:
        await self._admission()
        self._allowed()
        self._refused()
        violation = self._violation()
        worker = await self._quarantine(violation)
        self._afterwards()
        await self._why(worker, violation)

    def _tell(self, line: str = "") -> None:
        self.story.tell(line)

    def _saw(self, step: str) -> dict[str, Any]:
        seen = self.story.seen.get(step)
        if seen is None:
            raise DemoFailed(f"the worker never came to the step {step!r}")
        return seen

    async def _admission(self) -> None:
        workers = await self.story.running.fleet.workers()
        if len(workers) != 1:
            raise DemoFailed(f"expected one worker in the ledger, found {len(workers)}")
        (worker,) = workers
        self._tell(f"   worker {worker.worker_id}, seen by proxy {worker.binding_proxy_id}")
        self._tell(f"   its program's digest {worker.artifact_digest_sha256[:16]}… was approved")
        self._tell()

    def _allowed(self) -> None:
        seen = self._saw("allowed")
        if seen["status"] != 200 or "GET /simple/" not in self.story.upstream.requests:
            raise DemoFailed(f"the allowed request did not arrive: {seen}")
        self._tell("3. It asks for what the policy allows, over inspected TLS")
        self._tell(f"   {seen['client']}: GET {seen['url']} -> {seen['status']}  allowed")
        self._tell()

    def _refused(self) -> None:
        seen = self._saw("refused")
        if "egress.host_not_allowed" not in str(seen["text"]):
            raise DemoFailed(f"the refusal was not readable in the client's error: {seen}")
        self._tell("4. It asks for what no rule allows; its own client says why")
        self._tell(f"   {seen['client']}: GET {seen['url']} -> refused")
        self._tell(f"   {seen['text']}")
        self._tell()

    def _violation(self) -> dict[str, Any]:
        seen = self._saw("violation")
        if seen["status"] != 403:
            raise DemoFailed(f"the SSRF attempt was not refused: {seen}")
        self._tell("5. With a download still running, it reaches for the cloud's metadata service")
        self._tell(f"   {seen['client']}: GET {seen['url']} -> refused: {seen['text']}")
        audit = self.story.running.proxy.enforcement.settings.audit_file
        found = [e for e in entries(audit) if e.get("reason") == "egress.metadata_target"]
        if len(found) != 1:
            raise DemoFailed(f"expected one audit entry of the violation, found {len(found)}")
        return dict(found[0])

    async def _quarantine(self, violation: dict[str, Any]) -> WorkerView:
        (worker,) = await self.story.running.fleet.workers()
        if worker.admission != "quarantined" or worker.lease_id is not None:
            raise DemoFailed(f"the worker is not quarantined without a lease: {worker}")
        quarantined_at = worker.quarantined_at_unix_ms or 0
        took_ms = quarantined_at - int(violation["at_unix_ms"])
        cut_after_ms = self._saw("cut")["after_ms"]
        if cut_after_ms is None:
            raise DemoFailed("the worker's open connection was not cut")
        self._tell(f"   quarantined by the fleet {took_ms} ms after the violation, by itself")
        self._tell(f"   its open connection was cut {cut_after_ms} ms after it asked")
        self._tell()
        return worker

    def _afterwards(self) -> None:
        seen = self._saw("afterwards")
        if "403" not in str(seen["text"]):
            raise DemoFailed(f"the next request was not refused: {seen}")
        self._tell("6. Its next request, to a host that was allowed before")
        self._tell(f"   {seen['client']}: GET {seen['url']} -> refused: {seen['text']}")
        code = self.story.exit_code
        who = "the worker runtime ended the program" if code >= BY_SIGNAL else "the program ended"
        self._tell(f"   {who} (exit {code})")
        self._tell()

    async def _why(self, worker: WorkerView, violation: dict[str, Any]) -> None:
        fleet = self.story.running.fleet
        events = await fleet.events(0, 1000)
        of_worker = [event for event in events if event.worker_id == worker.worker_id]
        if not any(event.reason == "worker.quarantined_by_egress" for event in of_worker):
            raise DemoFailed("the ledger does not say why the worker was quarantined")
        self._tell("7. Why? The audit log and the ledger say so")
        self._tell(
            f"   audit:  decision {violation['decision_id']}: {violation['method']} "
            f"{violation['target']} -> {violation['reason']}, consequence "
            f"{violation['consequence']}"
        )
        for event in of_worker:
            self._tell(f"   ledger: {_event_line(event)}")
        count = await fleet.verify_events()
        audit = self.story.running.proxy.enforcement.settings.audit_file
        verified = verify_file(audit)
        self._tell(f"   both chains hold: {verified.entries} audit entries, {count} ledger events")


def _event_line(event: EventView) -> str:
    why = event.detail.get("why")
    return f"#{event.seq} {event.reason} by {event.actor}" + (f", why: {why}" if why else "")
