"""`doctor`: what is wrong with this installation, and what to do. 0 healthy, 1 not.

The fleet's checks, and how findings of either program are told.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from palyra_fleet.cli.config_commands import found_settings
from palyra_fleet.cli.configuration import FLEET, Program
from palyra_fleet.cli.output import printable, put, say
from palyra_fleet.cli.parser import make_parser
from palyra_fleet.cli.place import Home
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.doctor import files, listeners, machine, state
from palyra_fleet.doctor.finding import Check, Finding, Standing, examine, fail, is_healthy, ok


def doctor(arguments: Namespace) -> int:
    """The fleet's checks."""
    return look_and_tell(_checks(arguments), arguments)


def _checks(arguments: Namespace) -> Sequence[Check]:
    home, state_dir, now = Home.of(), arguments.state_dir, now_unix_ms()
    least_bytes = arguments.least_free_mib * machine.MIB
    secrets = _secrets(home, state_dir)
    offline = [
        Check("home", lambda: files.private_directory("home", home.directory, state.STARTING)),
        Check("home", lambda: files.private_directory("home", state_dir, state.STARTING)),
        Check("files", lambda: files.private_files("files", secrets)),
        Check("token", lambda: state.token(home.token_file)),
        Check("principals", lambda: state.principals(home.directory / "principals.json")),
        Check("settings", lambda: settings(FLEET, make_parser())),
        Check("clock", lambda: machine.clock(now)),
        Check("store.fleet", lambda: state.fleet_store(state_dir, now)),
        Check("store.identity", lambda: state.identity_store(state_dir, now)),
        Check("disk", lambda: machine.disk(state_dir, least_bytes)),
        Check("descriptors", lambda: machine.descriptors(arguments.socket)),
        Check("core_files", lambda: machine.core_files(arguments.socket)),
        Check("isolation", lambda: machine.isolation(Path.cwd())),
    ]
    online = [
        Check(
            "listener.socket", lambda: listeners.unix_socket("listener.socket", arguments.socket)
        ),
        Check(
            "listener.operators",
            lambda: listeners.unix_socket("listener.operators", home.operators_socket),
        ),
        Check("listener.admin", lambda: listeners.admin(home.admin_url_file)),
    ]
    return offline if arguments.offline else [*offline, *online]


def _secrets(home: Home, state_dir: Path) -> list[Path]:
    """Everything with a secret in it that the fleet may have written."""
    found = [home.token_file, home.directory / "principals.json"]
    for folder in (state_dir, home.directory / "launcher", home.directory / "node-agent"):
        for pattern in ("*.key", "*.sqlite3*", "*.json", "*.jsonl"):
            found += sorted(folder.glob(pattern))
    return found


def settings(program: Program, top: ArgumentParser) -> Iterator[Finding]:
    """What the environment of this shell sets, and the file that it names, can be used; a variable
    that nothing reads is a setting that somebody believes to hold."""
    try:
        found = found_settings(program, top)
    except Trouble as trouble:
        yield fail("settings", trouble.why, trouble.remedy)
        return
    count = sum(map(len, found.values()))
    yield ok("settings", f"{count} set by the environment and {program.file_variable}, each good")


def look_and_tell(checks: Sequence[Check], arguments: Namespace) -> int:
    """Make the checks that are wanted. Raises Trouble where one is not known."""
    known = {check.name for check in checks}
    unknown = [name for name in arguments.skip if name not in known]
    if unknown:
        raise Trouble(
            ExitCode.YOURS,
            "there is no such check",
            f"--skip {unknown[0]}; expected one of {', '.join(sorted(known))}",
            "correct the name",
        )
    return _tell(examine([one for one in checks if one.name not in arguments.skip]), arguments)


def _tell(findings: Sequence[Finding], arguments: Namespace) -> int:
    """Findings on stdout, a sentence on stderr; the exit code."""
    healthy = is_healthy(findings, strict=arguments.strict)
    if arguments.output == "json":
        rows = [finding.row() for finding in findings]
        put(json.dumps({"healthy": healthy, "findings": rows}, indent=2))
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            said = f"{finding.check.ljust(width)}  {printable(finding.what)}"
            put(f"{finding.standing.value:<4}  {said}")
            if finding.remedy:
                put(f"{'':<4}  {'':<{width}}  do: {printable(finding.remedy)}")
        counts = [
            f"{sum(finding.standing is standing for finding in findings)} {standing.value}"
            for standing in Standing
        ]
        say(", ".join(counts))
    return ExitCode.DONE if healthy else ExitCode.NO
