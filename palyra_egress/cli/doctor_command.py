"""`palyra-egress doctor`: what is wrong with this proxy's installation, and what to do."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from palyra_egress.cli.channel_arguments import address
from palyra_egress.cli.parser import make_parser
from palyra_egress.clock import now_unix_ms
from palyra_egress.credentials.vault_file import MASTER_KEY_FILE, VAULT_FILE
from palyra_egress.doctor import files_of_proxy, refusal_probe
from palyra_egress.installation import EgressNote, Installation
from palyra_fleet.cli.configuration import EGRESS
from palyra_fleet.cli.doctor_commands import look_and_tell, settings
from palyra_fleet.doctor import files, machine
from palyra_fleet.doctor.finding import Check, Finding, fail
from palyra_fleet.doctor.listeners import readiness


@dataclass(frozen=True, slots=True)
class _Place:
    """What is looked at. `proxy` is None where nobody said where it listens."""

    installation: Installation
    state_dir: Path
    policy_file: Path
    proxy: tuple[str, int] | None
    problems: tuple[Finding, ...] = ()

    @property
    def admin_socket(self) -> Path:
        return self.state_dir / "admin.sock"


def doctor(arguments: Namespace) -> int:
    """Look at everything; 0 healthy, 1 not."""
    return look_and_tell(_checks(arguments, _place(arguments)), arguments)


def _place(arguments: Namespace) -> _Place:
    """Flags first, then what the running installation says of itself."""
    installation = Installation.of_environment()
    policy, proxy = arguments.policy, arguments.proxy
    problems: list[Finding] = []
    if policy is None or (proxy is None and not arguments.offline):
        try:
            note = EgressNote.read(installation.note)
            policy = policy or Path(note.policy_file)
            proxy = proxy or address(note.proxy)
        except (OSError, ValueError) as error:
            problems.append(files_of_proxy.note_problem(installation.note, error))
    return _Place(
        installation,
        arguments.state_dir or installation.egress_state,
        policy or Path("policies/coding-agent.yaml"),
        proxy,
        tuple(problems),
    )


def _checks(arguments: Namespace, place: _Place) -> Sequence[Check]:
    now, state_dir = now_unix_ms(), place.state_dir
    secrets = _secrets(place, arguments.master_key)
    least_bytes = arguments.least_free_mib * machine.MIB
    checks = [
        Check("mitmproxy", files_of_proxy.mitmproxy),
        Check("home", lambda: files.private_directory("home", state_dir, files_of_proxy.STARTING)),
        Check("files", lambda: files.private_files("files", secrets)),
        Check("settings", lambda: settings(EGRESS, make_parser())),
        Check("clock", lambda: machine.clock(now)),
        Check("ca.proxy", lambda: files_of_proxy.authority(state_dir / "ca", now)),
        Check("policy", lambda: files_of_proxy.policy(place.policy_file, now)),
        Check("audit", lambda: files_of_proxy.audit_end(state_dir / "audit.jsonl")),
        Check("disk", lambda: machine.disk(state_dir, least_bytes)),
        Check("descriptors", lambda: machine.descriptors(place.admin_socket)),
        Check("core_files", lambda: machine.core_files(place.admin_socket)),
    ]
    if place.problems:
        checks.insert(0, Check("note", lambda: place.problems))
    if not arguments.offline:
        checks.append(Check("ready", lambda: _ready(place)))
        checks.append(Check("refuses", lambda: _refuses(place)))
    return checks


def _ready(place: _Place) -> Iterator[Finding]:
    starting = f"start it with {files_of_proxy.STARTING}, or pass --offline"
    return readiness("ready", "http://proxy/readyz", place.admin_socket, starting)


def _refuses(place: _Place) -> Iterator[Finding]:
    if place.proxy is None:
        yield fail(
            "refuses",
            "nobody said where the proxy listens",
            "pass --proxy HOST:PORT of one that runs",
        )
        return
    url_file = place.installation.home.admin_url_file
    admin = urlsplit(url_file.read_text(encoding="ascii").strip()) if url_file.exists() else None
    asked = refusal_probe.probes(admin.netloc) if admin else refusal_probe.probes()
    yield from refusal_probe.refuses(place.proxy, asked)


def _secrets(place: _Place, master_key: Path | None) -> list[Path]:
    """Everything with a secret in it that the proxy may have written."""
    state_dir = place.state_dir
    found = [
        state_dir / "proxy.key",
        *sorted((state_dir / "ca").glob("*-key.pem")),
        state_dir / VAULT_FILE,
        state_dir / MASTER_KEY_FILE,
        state_dir / "audit.jsonl",
        place.installation.launcher_key,
        *(() if master_key is None else (master_key,)),
    ]
    return [*found, *sorted((state_dir / "spool").glob("*"))]
