"""`run`: any program as a worker of this installation.

The operator who calls it approves the measured program (its digest becomes a reference value), the
grant for one run, and the profile. The program gets a lease, the environment with proxy and CA
bundle, and a workspace; its exit code is passed through.
"""

import asyncio
import contextlib
import getpass
import os
import re
from argparse import Namespace
from pathlib import Path

from ulid import ULID

from palyra_egress.audit.summary import end_of, refusals_of_run
from palyra_egress.installation import EgressNote, Installation
from palyra_egress.policy.load import load_policy_file
from palyra_fleet.cli.output import say
from palyra_fleet.cli.place import find_fleet
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client.errors import FleetError
from palyra_fleet.client.operator import OperatorClient
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import GrantRequest, ReferenceValues
from palyra_fleet.wire.worker_actions import WorkerAction
from palyra_fleet.worker.artifact_arguments import carriage_of
from palyra_fleet.worker.isolation.sandbox import Isolation
from palyra_fleet.worker.launcher import Launcher, WorkerIdentity, measure
from palyra_fleet.worker.run_settings import RunSettings
from palyra_fleet.worker.runner import run_as_worker
from palyra_fleet.worker.session import SessionSettings


def run(arguments: Namespace) -> int:
    """Run the program; the exit code is the program's own."""
    if not arguments.program:
        raise Trouble(
            ExitCode.YOURS, "there is nothing to run", "no program was named", "put it after `--`"
        )
    return asyncio.run(_run(arguments))


async def _run(arguments: Namespace) -> int:
    note = _note()
    profile = _profile_of(Path(note.policy_file), arguments.profile)
    run_id = arguments.run_id or f"run-{ULID()}"
    worker_id = arguments.worker_id or str(ULID())
    grant_id = await _approve(arguments, run_id, profile)
    settings = RunSettings(
        session=SessionSettings(
            fleet=Path(note.fleet_socket),
            proxy_address=note.proxy,
            launcher=Launcher(SigningKey.load(Path(note.launcher_key))),
            identity=WorkerIdentity(worker_id, f"local:{worker_id}", tuple(arguments.capability)),
        ),
        run_id=run_id,
        combined_bundle=Path(note.bundle_file),
        palyra_ca=Path(note.ca_file),
        keep_env=frozenset(arguments.keep_env),
        isolation=_isolation(note) if arguments.isolate else None,
        socks_address=_socks_address(note, arguments.isolate) if arguments.socks else "",
        carriage=carriage_of(arguments),
        read_only=arguments.read_only,
    )
    say(f"palyra: run {run_id} as worker {worker_id}, profile {profile}")
    if not arguments.isolate and _binds_secrets(Path(note.policy_file), profile):
        say("palyra: this profile binds secrets; without --isolate the program can read what your")
        say("palyra: account can, and that may be where they lie")
    audit_file = Path(note.audit_file)
    before = await asyncio.to_thread(end_of, audit_file)
    ran = False
    try:
        code = await run_as_worker(arguments.program, settings, say)
        ran = True
    finally:
        _tell_refusals(await asyncio.to_thread(refusals_of_run, audit_file, before, run_id))
        if not ran:
            await _withdraw(arguments, grant_id)
        if arguments.worker_id is None:
            await _forget(arguments, worker_id)
    return code


def _socks_address(note: EgressNote, is_isolated: bool) -> str:
    if is_isolated:
        why = "the one door out of the isolation leads to the HTTP proxy"
    elif not note.socks:
        why = "this installation does not listen for it"
    else:
        return note.socks
    remedy = "leave out --isolate or --socks" if is_isolated else "start with up --listen-socks"
    raise Trouble(ExitCode.YOURS, "SOCKS cannot be used here", why, remedy)


def _isolation(note: EgressNote) -> Isolation:
    """Without the state of the installation, and without the places where it has secrets."""
    home = Installation.of_environment().directory
    return Isolation((home, *map(Path, note.secret_directories)))


def _binds_secrets(policy_file: Path, profile: str) -> bool:
    """Whether a rule of this profile adds a credential or shows a certificate."""
    policy = load_policy_file(policy_file)
    rule_ids = {
        rule_id
        for spec in policy.spec.profiles
        if spec.name == profile
        for rule_id, _ in spec.rule_ids
    }
    rules = [policy.rules[rule_id] for rule_id in rule_ids]
    return any(one.credentials or one.upstream_tls.client_certificate for one in rules)


def _tell_refusals(refusals: list[str]) -> None:
    """Many clients show only a status; the person at the terminal should not have to look."""
    if refusals:
        say("palyra: refused during this run:")
    for line in refusals:
        say(f"palyra:   {line}")


async def _forget(arguments: Namespace, worker_id: str) -> None:
    """A worker that was made for this run leaves the ledger with it, unless it is quarantined: then
    the fleet refuses, and the worker stays for an operator to look at."""
    with contextlib.suppress(FleetError, Trouble):  # Trouble: it has ended, and its socket with it
        async with OperatorClient(*find_fleet(arguments.url, arguments.token_file)) as it:
            await it.act(WorkerAction.EVICT, worker_id, "the run it was made for has ended")


async def _withdraw(arguments: Namespace, grant_id: str) -> None:
    """An approval of a run that did not come to be is not left lying about."""
    with contextlib.suppress(FleetError, Trouble):  # Trouble: it has ended, and its socket with it
        async with OperatorClient(*find_fleet(arguments.url, arguments.token_file)) as it:
            await it.withdraw_grant(grant_id, "the run it was made for did not start")


async def _approve(arguments: Namespace, run_id: str, profile: str) -> str:
    """Make the measured program a reference value, and grant it one run; the grant's id."""
    measured = await asyncio.to_thread(measure, arguments.program[0])
    operator = OperatorClient(*find_fleet(arguments.url, arguments.token_file))
    try:
        await operator.add_reference_values(
            ReferenceValues(
                image_digests_sha256=(measured.image_digest_sha256,),
                build_digests_sha256=(measured.build_digest_sha256,),
                artifact_digests_sha256=(measured.artifact.digest_sha256,),
            )
        )
        granted = await operator.create_grant(
            GrantRequest(
                run_id=run_id,
                tool_name=_tool_name(arguments.program[0]),
                principal=_principal(),
                egress_profile=profile,
                ttl_ms=arguments.hours * 3_600_000,
                read_only=arguments.read_only,
            )
        )
        return granted.grant_id
    finally:
        await operator.close()


def _principal() -> str:
    """Who asks for the run: by name, or by number where the account has no name."""
    try:
        return getpass.getuser()
    except OSError:
        return f"uid:{os.getuid()}"


def _note() -> EgressNote:
    path = Installation.of_environment().note
    try:
        return EgressNote.read(path)
    except FileNotFoundError:
        why, remedy = f"{path} does not exist", "start it with `make up`, or set PALYRA_HOME"
    except (OSError, ValueError) as error:
        why, remedy = str(error), "start the proxy again with `make up`"
    raise Trouble(ExitCode.YOURS, "no proxy is known here", why, remedy)


def _profile_of(policy_file: Path, asked: str | None) -> str:
    """The profile that was asked for, or the only one there is."""
    profiles = sorted(load_policy_file(policy_file).profiles)
    if asked in profiles:
        return asked
    if asked is None and len(profiles) == 1:
        return profiles[0]
    raise Trouble(
        ExitCode.YOURS,
        "the policy has more than one profile"
        if asked is None
        else f"the policy has no profile {asked!r}",
        f"it has {', '.join(profiles)}",
        "choose one with --profile",
    )


def _tool_name(command: str) -> str:
    """The program's name in the alphabet of tool names."""
    name = re.sub(r"[^a-z0-9._-]", "-", Path(command).name.lower()).strip("._-")
    return name[:64] or "program"
