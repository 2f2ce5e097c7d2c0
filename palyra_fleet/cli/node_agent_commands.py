"""`palyra-fleet node install|run|status|uninstall`: this machine as a node of a fleet elsewhere.

`install` reads the pairing code from standard input, so that it stands in no argument list and no
shell history, and waits for an operator. `run` works until Ctrl-C. `uninstall` tells the fleet
first, then forgets; `--local-only` forgets without asking anybody.
"""

import asyncio
import contextlib
import fcntl
import getpass
import json
import os
import shlex
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from palyra_fleet.cli.output import put, say
from palyra_fleet.cli.place import Home
from palyra_fleet.cli.trouble import ExitCode, Trouble, reason_of
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.node_agent.agent import (
    AgentSettings,
    NodeAgent,
    NodeRefusedForGood,
    revoke_own_pairing,
)
from palyra_fleet.node_agent.enrolment import EnrolmentSettings, PairingFailed, enrol
from palyra_fleet.node_agent.keys import CertificateRefused
from palyra_fleet.node_agent.material import AgentHome, MaterialUnusable, NotPaired
from palyra_fleet.tasks import spawn

_STARTS = {"proxy": "palyra-egress proxy serve --fleet https://HOST:PORT"}
"""What a machine of this kind is started with, if it is not the agent."""


def install(arguments: Namespace) -> int:
    """Pair this machine. Nothing is stored unless an operator approved."""
    home = AgentHome(arguments.home)
    with _only_agent(home), _in_words():
        if home.is_paired and not arguments.again:
            raise Trouble(
                ExitCode.YOURS,
                "this node is paired already",
                f"{home.material_file} exists",
                "`palyra-fleet node uninstall` first, or `--again` to pair it anew",
            )
        settings = EnrolmentSettings(
            enrolment_address=arguments.enrolment,
            node_address=arguments.node,
            root_pem=_root(arguments.ca),
            client_kind=arguments.kind,
        )
        material = asyncio.run(enrol(settings, _code(), say))
        home.save(material)
    usual = home.directory == Home.of().directory / "node-agent"
    where = "" if usual else f" --home {shlex.quote(str(home.directory))}"
    start = _STARTS.get(arguments.kind, f"palyra-fleet node run{where}")
    put(f"paired as {material.device_id}; start it with `{start}`")
    return ExitCode.DONE


def run(arguments: Namespace) -> int:
    """Be a node until Ctrl-C or SIGTERM."""
    home = AgentHome(arguments.home)
    with _only_agent(home), _in_words():
        home.load()
        asyncio.run(_run(NodeAgent(home, AgentSettings(say=say))))
    return ExitCode.DONE


async def _run(agent: NodeAgent) -> None:
    ends = (NodeRefusedForGood, NotPaired, MaterialUnusable)
    running = spawn(agent.run(), "node agent", told=ends)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
    say("stopped")


def status(arguments: Namespace) -> int:
    """Who this node is, how long its certificate holds, and whether it was connected last."""
    home = AgentHome(arguments.home)
    with _in_words():
        material = home.load()
    left_ms = material.newest.expires_at_unix_ms - now_unix_ms()
    fields: dict[str, object] = {
        "device_id": material.device_id,
        "client_kind": material.client_kind,
        "node_address": material.node_address,
        "certificate_fingerprint": material.newest.fingerprint,
        "certificate_expires_at_unix_ms": material.newest.expires_at_unix_ms,
        "certificate_expires_in_s": max(0, left_ms // 1000),
        "running": _is_running(home),
        **_last_note(home),
    }
    if arguments.output == "json":
        put(json.dumps(fields, indent=2))
    else:
        for name, value in fields.items():
            put(f"{name:<32}{value}")
    return ExitCode.DONE if left_ms > 0 else ExitCode.NO


def uninstall(arguments: Namespace) -> int:
    """Revoke this node's pairing and remove what it stored."""
    home = AgentHome(arguments.home)
    with _only_agent(home), _in_words():
        if not arguments.local_only:
            asyncio.run(revoke_own_pairing(home.load(), "uninstalled"))
        home.forget()
    put("forgotten" if arguments.local_only else "revoked and forgotten")
    return ExitCode.DONE


def _code() -> str:
    """One line of standard input; at a terminal it is not shown."""
    if sys.stdin.isatty():
        return getpass.getpass("pairing code: ", stream=sys.stderr).strip()
    return sys.stdin.readline(4096).strip()


def _root(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(
            ExitCode.YOURS,
            "the fleet's CA cannot be read",
            f"{path}: {reason_of(error)}",
            "ask an operator for the file; it is no secret, but it must be the right one",
        ) from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise Trouble(
            ExitCode.YOURS,
            "that is no CA file",
            f"{path}: holds no PEM certificate",
            "ask an operator for the fleet's CA certificate",
        )
    return text


@contextlib.contextmanager
def _only_agent(home: AgentHome) -> Iterator[None]:
    """One agent at a time per directory: two would rotate against each other."""
    home.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Trouble(
                ExitCode.YOURS,
                "another agent works in this directory",
                str(home.directory),
                "stop it first, or name another directory with --home",
            ) from error
        yield
    finally:
        os.close(descriptor)


def _is_running(home: AgentHome) -> bool:
    try:
        descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _last_note(home: AgentHome) -> dict[str, object]:
    try:
        noted = json.loads(home.status_file.read_bytes())
    except (OSError, ValueError):
        return {"last_state": None, "last_state_at_unix_ms": None}
    return {"last_state": noted.get("state"), "last_state_at_unix_ms": noted.get("at_unix_ms")}


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """What went wrong, for a person."""
    try:
        yield
    except PairingFailed as failed:
        raise Trouble(
            ExitCode.NO,
            "this node was not paired",
            str(failed),
            "ask an operator for a new code and try again",
        ) from failed
    except CertificateRefused as refused:
        raise Trouble(
            ExitCode.NO,
            "this node was not paired",
            str(refused),
            "check that the CA file and the addresses belong to one fleet",
        ) from refused
    except NotPaired as not_paired:
        raise Trouble(
            ExitCode.YOURS,
            "this node is not paired",
            str(not_paired),
            "`palyra-fleet node install` pairs it",
        ) from not_paired
    except MaterialUnusable as unusable:
        raise Trouble(
            ExitCode.YOURS,
            "the stored pairing cannot be used",
            str(unusable),
            "restore the directory, or `node uninstall --local-only` and pair again",
        ) from unusable
    except ConnectionError as error:
        raise Trouble(
            ExitCode.UNREACHABLE,
            "the fleet cannot be asked",
            str(error),
            "try again, or `--local-only` to forget without telling it",
        ) from error
    except NodeRefusedForGood as refused:
        raise Trouble(
            ExitCode.NO,
            "the fleet refuses this node",
            str(refused),
            "`palyra-fleet node install --again` with a new code",
        ) from refused
