"""The verbs of `worker` that run a program: `run` once, `serve` for every run that is offered."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.evidence_arguments import add_evidence_arguments, add_keep_env
from palyra_fleet.cli.later import LaterModule
from palyra_fleet.cli.log_arguments import add_log_arguments
from palyra_fleet.cli.place import Home
from palyra_fleet.worker.artifact_arguments import add_artifact_arguments

if TYPE_CHECKING:
    from palyra_fleet.cli import worker_commands
else:
    worker_commands = LaterModule("palyra_fleet.cli.worker_commands")

_Verbs = argparse._SubParsersAction  # what add_subparsers returns; it has no public name


def add_worker_programs(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    _run(verbs)
    _serve(verbs)


def _run(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    verb = verbs.add_parser("run", help="run a program as a worker")
    _add_worker(verb)
    verb.add_argument("--run-id", type=types.principal, required=True)
    verb.add_argument(
        "--ttl-s", type=types.seconds, default=300, help="the lease's length; it is renewed in time"
    )
    verb.add_argument(
        "--tool", type=types.name, help="with --profile: have an approval rule approve the run"
    )
    verb.add_argument(
        "--profile", type=types.name, help="with --tool: the egress profile that is asked for"
    )
    verb.add_argument(
        "--read-only",
        action="store_true",
        help="with --isolate: it may change neither its workspace nor the working directory",
    )
    add_artifact_arguments(verb)
    verb.set_defaults(run=worker_commands.run_worker)


def _serve(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    verb = verbs.add_parser(
        "serve",
        help="wait for runs that are placed here, and run a program for each",
        description="Wait for runs that are placed here, and run the program for each, one after "
        "the other. A signal drains: the run ends by itself, then the worker leaves; a second ends "
        "the run.",
    )
    _add_worker(verb)
    verb.add_argument(
        "--runs", type=types.rows, metavar="N", help="leave after so many (default: wait on)"
    )
    verb.add_argument(
        "--carry-from",
        type=Path,
        metavar="DIR",
        help="where the inputs that a run names lie, by their paths (default: such runs are "
        "declined)",
    )
    verb.add_argument(
        "--carry-to",
        type=Path,
        metavar="DIR",
        help="where outputs are put, in a directory for each run (default: such runs are declined)",
    )
    verb.set_defaults(run=worker_commands.serve_worker)


def _add_worker(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--socket", type=Path, default=Home.of().socket_path)
    verb.add_argument(
        "--fleet",
        metavar="https://HOST:PORT",
        help="a fleet on another machine; this one must have paired as a node",
    )
    verb.add_argument(
        "--device",
        type=Path,
        default=Home.of().directory / "node-agent",
        metavar="DIR",
        help="with --fleet: where `node install` put the pairing (default PALYRA_HOME/node-agent)",
    )
    verb.add_argument("--proxy", required=True, metavar="HOST:PORT")
    add_evidence_arguments(verb)
    verb.add_argument("--worker-id", type=types.ulid, help="default: a new one")
    verb.add_argument("--identity", type=types.principal, help="what the launcher vouches for")
    verb.add_argument("--capability", type=types.name, action="append", default=[])
    verb.add_argument("--ca-bundle", type=Path, required=True, help="system roots plus our CA")
    verb.add_argument("--ca", type=Path, required=True, help="our CA alone")
    add_keep_env(verb)
    verb.add_argument(
        "--isolate",
        action="store_true",
        help="run it where nothing but the proxy leads out (binding level enforced; needs bwrap)",
    )
    verb.add_argument(
        "--hide",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="with --isolate: nothing to see in its place (may be repeated)",
    )
    add_log_arguments(verb, serves=False)
    verb.add_argument("program", nargs="*", metavar="-- PROGRAM ARGUMENT…")
