"""The arguments of `palyra-egress run`, `env` and `doctor`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from palyra_egress.cli.channel_arguments import address
from palyra_egress.cli.env_command import FORMS
from palyra_fleet.cli.doctor_parser import DESCRIPTION, add_doctor_arguments
from palyra_fleet.cli.log_arguments import add_log_arguments
from palyra_fleet.worker.artifact_arguments import add_artifact_arguments

type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]
type _Later = Callable[[str, str], Callable[[argparse.Namespace], int]]


def add_worker_commands(commands: _Commands, later: _Later) -> None:
    """Add what leads programs to the proxy; `later` is how a handler is named."""
    _add_run(commands, later)
    _add_env(commands, later)


def _add_env(commands: _Commands, later: _Later) -> None:
    env = commands.add_parser(
        "env",
        help="print the variables that lead a program to the proxy",
        description="Print the variables that lead a program to the proxy: the same that `run`"
        " sets. With a credential in them they are a secret.",
    )
    env.add_argument("--shell", choices=FORMS, required=True, help="for whom (docker: an env file)")
    env.add_argument(
        "--credentials-file",
        type=Path,
        metavar="FILE",
        help="one line, LEASE_ID:SECRET, mode 600 (default: no credential in the URL)",
    )
    env.add_argument(
        "--proxy", type=address, metavar="HOST:PORT", help="default: the running proxy's"
    )
    env.add_argument("--ca", type=Path, metavar="PEM", help="our CA alone (default: the running's)")
    env.add_argument(
        "--ca-bundle", type=Path, metavar="PEM", help="public roots and our CA (default: as above)"
    )
    env.add_argument("--socks", action="store_true", help="name SOCKS5 (socks5h) in ALL_PROXY")
    env.add_argument(
        "--socks-address", type=address, metavar="HOST:PORT", help="where, if no proxy runs here"
    )
    env.set_defaults(run=later("env_command", "env"))


def _add_run(commands: _Commands, later: _Later) -> None:
    run = commands.add_parser("run", help="run any program as a worker of this installation")
    run.add_argument("--profile", help="the policy's profile (needed where there are several)")
    run.add_argument(
        "--hours",
        type=_hours,
        default=12,
        metavar="N",
        help="how long the approval lasts at most (default 12, at most 168); then the run ends",
    )
    run.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="NAME",
        help="what to say of the worker; counts where the fleet trusts it (may be repeated)",
    )
    run.add_argument("--run-id", help="the run's id (default: a fresh one)")
    run.add_argument("--worker-id", help="run as this worker (default: a fresh one)")
    run.add_argument("--url", help="the admin API (default: from PALYRA_HOME)")
    run.add_argument("--token-file", type=Path, help="the operator's token (default: PALYRA_HOME)")
    run.add_argument(
        "--keep-env",
        action="append",
        default=[],
        metavar="NAME",
        help="pass on this variable although it may make the program run other code "
        "(LD_PRELOAD, NODE_OPTIONS, PYTHONPATH …; may be repeated)",
    )
    run.add_argument(
        "--isolate",
        action="store_true",
        help="run it where nothing but the proxy leads out (binding level enforced; needs bwrap)",
    )
    run.add_argument(
        "--read-only",
        action="store_true",
        help="with --isolate: it may change neither its workspace nor the working directory",
    )
    run.add_argument(
        "--socks",
        action="store_true",
        help="name SOCKS5 (socks5h) in ALL_PROXY; needs `up --listen-socks`, and no --isolate",
    )
    add_log_arguments(run, serves=False)
    add_artifact_arguments(run)
    run.add_argument("program", nargs="*", metavar="-- CMD", help="the program and its arguments")
    run.set_defaults(run=later("run_commands", "run"))


def add_doctor(commands: _Commands, later: _Later) -> None:
    """Add `doctor`."""
    doctor = commands.add_parser(
        "doctor", help="find what is wrong with this installation", description=DESCRIPTION
    )
    doctor.add_argument("--state-dir", type=Path, help="the proxy's (default: from PALYRA_HOME)")
    doctor.add_argument("--policy", type=Path, metavar="FILE", help="default: the running proxy's")
    doctor.add_argument(
        "--proxy", type=address, metavar="HOST:PORT", help="default: the running proxy's"
    )
    doctor.add_argument(
        "--master-key", type=Path, metavar="FILE", help="what seals the vault, if not beside it"
    )
    add_doctor_arguments(doctor)
    doctor.set_defaults(run=later("doctor_command", "doctor"))


def _hours(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 168:
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 168")
    return int(text)
