"""What the proxy keeps: its CA, its policy, the end of its audit log, and the mitmproxy it runs on.

Nothing is created: what is missing is a fault. Times: Unix milliseconds.
"""

import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from palyra_egress.audit.chain import ChainBroken, ChainHead, walk
from palyra_egress.audit.checkpoint import read_checkpoint
from palyra_egress.audit.segments import checkpoint_file
from palyra_egress.destination.hostname import HostRefused
from palyra_egress.doctor.metadata_targets import METADATA_URLS
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.load import load_policy_file
from palyra_egress.policy.policy_tests import run_tests
from palyra_egress.policy.request_text import judge_request_from_url
from palyra_egress.proxy.tested_mitmproxy import TESTED_MITMPROXY
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.service import EgressProxyPolicyService
from palyra_egress.verdict import Effect, NeedsResolution
from palyra_fleet.doctor.finding import Finding, fail, ok, why_not
from palyra_fleet.doctor.state import dated

TAIL_BYTES: Final = 4 * 1024 * 1024
"""How much of the audit log is verified; `audit verify` walks all of it."""
STARTING: Final = "`palyra-egress up` (or `palyra-egress proxy serve`, for the proxy alone)"
"""What begins a proxy."""
_RESTORE_CA: Final = "restore the folder from a backup; a new CA makes every worker distrust us"
_TAMPERED: Final = "treat it as tampered with: keep a copy, and see docs/audit.md"


def mitmproxy() -> Iterator[Finding]:
    """The version that is installed is one that was tested."""
    found = importlib.metadata.version("mitmproxy")
    if found in TESTED_MITMPROXY:
        yield ok("mitmproxy", f"mitmproxy {found}")
    else:
        tested = ", ".join(sorted(TESTED_MITMPROXY))
        said = f"mitmproxy {found} was never tested with this release ({tested} was)"
        yield fail("mitmproxy", said, "install the locked requirements")


def authority(directory: Path, now_unix_ms: int) -> Iterator[Finding]:
    """The CA that workers trust: whole, in date, and in the bundle that workers are given."""
    key_path, certificate_path = directory / "root-key.pem", directory / "root.pem"
    missing = [path for path in (key_path, certificate_path) if not path.exists()]
    if not directory.parent.exists():
        said = f"{directory} is not there: no proxy was started here, or it was removed"
        yield fail(
            "ca.proxy", said, f"if one ran here, {_RESTORE_CA}; else start it with {STARTING}"
        )
        return
    if missing:
        said = f"{', '.join(map(str, missing))} is missing"
        yield fail("ca.proxy", said, _RESTORE_CA)
        return
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        yield fail("ca.proxy", f"{directory} is damaged: {error}", _RESTORE_CA)
        return
    if key.public_key() != certificate.public_key():
        yield fail("ca.proxy", f"{key_path} is not the key of {certificate_path}", _RESTORE_CA)
        return
    yield dated("ca.proxy", certificate, now_unix_ms, "`palyra-egress ca rotate`")
    bundle = directory / "bundle.pem"
    ours = certificate.public_bytes(serialization.Encoding.PEM)
    if bundle.exists() and ours in bundle.read_bytes():
        yield ok("ca.bundle", f"{bundle} holds our root")
    else:
        said = f"{bundle} does not hold our root: workers would trust nothing of ours"
        yield fail("ca.bundle", said, "start the proxy again: it writes the file anew")


def policy(file: Path, now_unix_ms: int) -> Iterator[Finding]:
    """The policy loads, its own tests pass, and no profile reaches a metadata service."""
    try:
        loaded = load_policy_file(file, with_tests=False)
    except PolicyFileError as error:
        remedy = f"correct it: `palyra-egress policy check {file}`"
        yield fail("policy", str(error), remedy)
        return
    failing = run_tests(loaded)
    for problem in failing:
        yield fail("policy.tests", str(problem), f"`palyra-egress policy test {file}` says more")
    if not failing:
        count = len(loaded.spec.tests)
        yield ok("policy", f"{file}: {loaded.digest}, its {count} tests pass")
    yield from _metadata(loaded, now_unix_ms)


def _metadata(loaded: CompiledPolicy, now_unix_ms: int) -> Iterator[Finding]:
    service = EgressProxyPolicyService(loaded)
    reached = [
        f"{url} by profile {profile}"
        for profile in sorted(loaded.profiles)
        for url in METADATA_URLS
        if _is_let_through(service, _metadata_request(url, profile), now_unix_ms)
    ]
    if reached:
        remedy = "narrow the rules that reach it, then `palyra-egress policy check FILE`"
        yield fail("policy.metadata", f"reachable: {'; '.join(reached)}", remedy)
    else:
        said = f"{len(METADATA_URLS)} metadata services, refused to {len(loaded.profiles)} profiles"
        yield ok("policy.metadata", said)


def _metadata_request(url: str, profile: str) -> EgressRequest | None:
    try:
        return judge_request_from_url("GET", url, Requester("doctor", "doctor", profile))
    except HostRefused:
        return None


def _is_let_through(
    service: EgressProxyPolicyService, request: EgressRequest | None, now_unix_ms: int
) -> bool:
    """Whether the judge lets it pass; a name counts as one that leads to the address itself."""
    if request is None:
        return False
    judged = service.precheck(request, now_unix_ms)
    if isinstance(judged, NeedsResolution):
        judged = service.decide(request, ["169.254.169.254"], now_unix_ms, judged)
    return judged.effect is not Effect.DENY


def audit_end(log: Path) -> Iterator[Finding]:
    """The newest part of the log follows, entry by entry, and reaches the newest checkpoint."""
    checkpoint = checkpoint_file(log)
    if not log.exists():
        beginning = f"if one was here, restore it; else start the proxy with {STARTING}"
        remedy = _TAMPERED if checkpoint.exists() else beginning
        yield fail("audit", f"{log} does not exist", remedy)
        return
    # the checkpoint first: entries are added behind it, never before
    try:
        covers = read_checkpoint(checkpoint).covers if checkpoint.exists() else None
        seen = _tail(log)
    except ChainBroken as error:
        yield fail("audit", str(error), _TAMPERED)
        return
    last = max(seen, default=0)
    if covers is not None and last < covers.seq:
        said = f"{log} ends with entry {last}, but {checkpoint} covers entry {covers.seq}"
        yield fail("audit", f"{said}: the end was cut off", _TAMPERED)
    elif covers is not None and seen.get(covers.seq, covers.sha256) != covers.sha256:
        yield fail("audit", f"{log}: entry {covers.seq} is not what was signed", _TAMPERED)
    else:
        signed = "no checkpoint yet" if covers is None else f"signed to entry {covers.seq}"
        yield ok("audit", f"the last {len(seen)} entries hold, to entry {last}; {signed}")


def _tail(log: Path) -> dict[int, str]:
    """The digests of the last entries by their numbers. A line that is being written is not yet
    one. Raises ChainBroken."""
    size = log.stat().st_size
    with log.open("rb") as file:
        skipped = max(0, size - TAIL_BYTES)
        file.seek(skipped)
        content = file.read(size - skipped)
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    if skipped:
        lines = lines[1:]
    heads: list[ChainHead] = [step.head for step in walk(lines, str(log), None)]
    return {head.seq: head.sha256 for head in heads}


def note_problem(path: Path, error: Exception) -> Finding:
    """The words for a note that does not say where the proxy is."""
    if isinstance(error, FileNotFoundError):
        said = f"{path} is not there: `palyra-egress up` was never started here"
    elif isinstance(error, OSError | json.JSONDecodeError):
        said = f"{path}: {why_not(error)}"
    else:
        said = str(error)
    return fail("note", said, "start it with `palyra-egress up`, or name --proxy and --policy")
