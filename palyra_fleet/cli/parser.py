"""The grammar of `palyra-fleet`: nouns, verbs, flags, and the function each verb calls.

A parsed command carries `run`: a function of the arguments that returns the exit code.
"""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.approval_parser import add_approvals
from palyra_fleet.cli.command_parser import CommandParser
from palyra_fleet.cli.completion import add_completion
from palyra_fleet.cli.config_commands import add_config
from palyra_fleet.cli.configuration import FLEET, add_config_argument
from palyra_fleet.cli.device_parser import add_authorities, add_certificates, add_devices
from palyra_fleet.cli.doctor_parser import DESCRIPTION, add_doctor_arguments
from palyra_fleet.cli.enrolment_parser import add_enrolment, add_launcher_key, add_references
from palyra_fleet.cli.export_arguments import add_export_arguments
from palyra_fleet.cli.fleet_policy_arguments import add_fleet_policy_arguments
from palyra_fleet.cli.freeze_commands import add_freeze, add_unfreeze
from palyra_fleet.cli.join_token_commands import add_join_tokens
from palyra_fleet.cli.later import Command, LaterModule
from palyra_fleet.cli.log_arguments import add_log_arguments
from palyra_fleet.cli.node_agent_parser import add_node_agent
from palyra_fleet.cli.node_parser import add_node_operations, add_node_state
from palyra_fleet.cli.output import FORMS
from palyra_fleet.cli.place import Home
from palyra_fleet.cli.placement_parser import add_runs
from palyra_fleet.cli.policy_parser import add_policies
from palyra_fleet.cli.principal_parser import add_principals
from palyra_fleet.cli.release_commands import add_releases
from palyra_fleet.cli.snapshot_parser import add_snapshots
from palyra_fleet.cli.trace_arguments import add_trace_arguments
from palyra_fleet.cli.worker_parser import add_worker_programs
from palyra_fleet.ledger.worker_filter import ATTESTORS, ELIGIBILITIES, STATES
from palyra_fleet.wire.lease_models import LeasesThat
from palyra_fleet.wire.worker_actions import WorkerAction

if TYPE_CHECKING:
    from palyra_fleet.cli import (
        doctor_commands,
        event_commands,
        local_commands,
        operator_commands,
    )
else:
    doctor_commands = LaterModule("palyra_fleet.cli.doctor_commands")
    event_commands = LaterModule("palyra_fleet.cli.event_commands")
    local_commands = LaterModule("palyra_fleet.cli.local_commands")
    operator_commands = LaterModule("palyra_fleet.cli.operator_commands")

DEFAULT_ADMIN: Final = "127.0.0.1:7741"
DEFAULT_ENROLMENT: Final = "127.0.0.1:7742"
DEFAULT_NODE: Final = "127.0.0.1:7743"

_LISTS: Final = frozenset({"list", "requests", "asked", "offers"})
"""Verbs that answer a list, and can be watched."""

_Verbs = argparse._SubParsersAction  # what add_subparsers returns; it has no public name


def make_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = CommandParser(
        prog="palyra-fleet", description="Decide which workers exist and what each may do now."
    )
    nouns = parser.add_subparsers(dest="noun", required=True, metavar="NOUN")
    _serve(nouns)
    _doctor(nouns)
    add_completion(nouns, make_parser)
    add_config(nouns, FLEET, make_parser)
    _worker(_noun(nouns, "worker", "workers: look, act, run one"))
    _grant(_noun(nouns, "grant", "approvals of runs"))
    add_approvals(_noun(nouns, "approval", "rules that approve runs by themselves"), _operator_verb)
    _lease(_noun(nouns, "lease", "live leases"))
    add_runs(_noun(nouns, "run", "approved runs, for workers that wait"), _operator_verb)
    add_freeze(_noun(nouns, "freeze", "the kill switch"), _operator_verb)
    add_unfreeze(_noun(nouns, "unfreeze", "the end of a freeze"), _operator_verb)
    add_policies(_noun(nouns, "policy", "egress policies, as proxies have them"), _operator_verb)
    _violation(_noun(nouns, "violation", "what workers tried"))
    _event(_noun(nouns, "event", "the event log"))
    proxies = _noun(nouns, "proxy", "egress proxies")
    add_enrolment(proxies, _operator_verb)
    launchers = _noun(nouns, "launcher", "launchers that vouch for workers")
    add_enrolment(launchers, _operator_verb)
    add_launcher_key(launchers)
    add_references(_noun(nouns, "reference", "digests the fleet accepts"), _operator_verb)
    add_join_tokens(
        _noun(nouns, "join-token", "tokens that let one worker join each"), _operator_verb
    )
    add_snapshots(
        _noun(nouns, "snapshot", "copies of the fleet's state, and putting one back"),
        _operator_verb,
    )
    node = _noun(nouns, "node", "nodes of this fleet, and this machine as a node of a fleet")
    add_node_operations(node, _operator_verb)
    add_node_agent(node)
    add_devices(_noun(nouns, "device", "machines that paired with this fleet"), _operator_verb)
    add_certificates(
        _noun(nouns, "certificate", "certificates that the fleet issued"), _operator_verb
    )
    add_authorities(_noun(nouns, "ca", "the authority that signs nodes"), _operator_verb)
    add_node_state(_noun(nouns, "node-state", "the file with codes, requests and nodes"))
    add_principals(
        _noun(nouns, "principal", "who operates the fleet, in which roles"), _operator_verb
    )
    return parser


def _noun(
    nouns: "_Verbs[argparse.ArgumentParser]", name: str, text: str
) -> "_Verbs[argparse.ArgumentParser]":
    noun = nouns.add_parser(name, help=text, description=text)
    return noun.add_subparsers(dest="verb", required=True, metavar="VERB")


def _operator_verb(
    verbs: "_Verbs[argparse.ArgumentParser]",
    name: str,
    text: str,
    command: Command,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.add_argument("-o", "--output", choices=FORMS, default="table")
    if name in _LISTS:
        verb.add_argument(
            "--watch",
            type=types.seconds,
            nargs="?",
            const=2,
            metavar="SECONDS",
            help="look again every so often (2 where not said), until Ctrl-C",
        )
    verb.add_argument("--url", help="the fleet's admin address (else PALYRA_FLEET_URL)")
    verb.add_argument(
        "--token-file", type=Path, help="the operator's token (else PALYRA_FLEET_TOKEN_FILE)"
    )
    verb.set_defaults(run=functools.partial(operator_commands.run, command))
    return verb


def _serve(nouns: "_Verbs[argparse.ArgumentParser]") -> None:
    home = Home.of()
    verb = nouns.add_parser("serve", help="run the fleet until Ctrl-C")
    verb.add_argument("--state-dir", type=Path, default=home.fleet_state)
    verb.add_argument("--socket", type=Path, default=home.socket_path)
    verb.add_argument(
        "--admin",
        type=types.host_and_port,
        default=types.host_and_port(DEFAULT_ADMIN),
        metavar="HOST:PORT",
    )
    verb.add_argument(
        "--listen",
        type=types.host_and_port,
        metavar="ADDRESS:PORT",
        help="serve workers and proxies on other machines, over mutual TLS (needs --nodes)",
    )
    verb.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="attestors, as TOML; see docs/attestation.md (default: none but launchers)",
    )
    verb.add_argument(
        "--approval-rules",
        type=Path,
        metavar="FILE",
        help="rules that approve runs by themselves; see docs/approval-rules.md (default: none)",
    )
    add_fleet_policy_arguments(verb)
    _serve_nodes(verb)
    add_export_arguments(verb)
    add_trace_arguments(verb)
    add_log_arguments(verb, serves=True)
    add_config_argument(verb, FLEET)
    verb.set_defaults(run=local_commands.serve)


def _doctor(nouns: "_Verbs[argparse.ArgumentParser]") -> None:
    home = Home.of()
    verb = nouns.add_parser(
        "doctor",
        help="find what is wrong with this installation",
        description=DESCRIPTION,
    )
    verb.add_argument("--state-dir", type=Path, default=home.fleet_state)
    verb.add_argument("--socket", type=Path, default=home.socket_path)
    add_doctor_arguments(verb)
    verb.set_defaults(run=doctor_commands.doctor)


def _serve_nodes(verb: argparse.ArgumentParser) -> None:
    nodes = verb.add_argument_group("nodes", "gRPC listeners for nodes; see docs/nodes.md")
    nodes.add_argument("--nodes", action="store_true", help="serve nodes as well")
    nodes.add_argument(
        "--enrolment",
        type=types.host_and_port,
        default=types.host_and_port(DEFAULT_ENROLMENT),
        metavar="ADDRESS:PORT",
        help="for who has a pairing code",
    )
    nodes.add_argument(
        "--node",
        type=types.host_and_port,
        default=types.host_and_port(DEFAULT_NODE),
        metavar="ADDRESS:PORT",
        help="for who has a certificate of the fleet",
    )
    nodes.add_argument(
        "--server-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or address in the listeners' certificate, beside the fixed ones",
    )
    nodes.add_argument("--trust-domain", default="palyra.internal", help="in device identities")
    nodes.add_argument("--master-key", type=Path, metavar="FILE", help="what seals the CA's key")
    nodes.add_argument(
        "--allow-server-generated-keys",
        action="store_true",
        help="make keys for clients that send no certificate request (less safe)",
    )


def _worker(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    listed = _operator_verb(verbs, "list", "every worker", operator_commands.list_workers)
    listed.add_argument("--state", choices=STATES, help="only those in this state")
    listed.add_argument("--eligibility", choices=ELIGIBILITIES, help="only those that are so")
    listed.add_argument("--attestor", choices=ATTESTORS, help="only those it vouched for")
    listed.add_argument("--capability", type=types.name, help="only those that proved it")
    listed.add_argument("--waits", action="store_true", help="only those that wait for a run")
    listed.add_argument(
        "--demanded", action="store_true", help="only those of whom new evidence is demanded"
    )
    listed.add_argument(
        "--label",
        type=types.wanted_label,
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="only those with this label (may be repeated: with all of them)",
    )
    label = _operator_verb(
        verbs, "label", "give a worker labels, and take some", operator_commands.label_worker
    )
    label.add_argument("worker_id", type=types.ulid)
    label.add_argument("changes", type=types.label_change, nargs="+", metavar="KEY=VALUE|KEY-")
    label.add_argument("--reason", type=types.reason, required=True)
    show = _operator_verb(verbs, "show", "one worker", operator_commands.show_worker)
    show.add_argument("worker_id", type=types.ulid)
    for action in WorkerAction:
        verb = _operator_verb(
            verbs, action.value, f"{action.value} a worker", operator_commands.change_worker
        )
        verb.add_argument("worker_id", type=types.ulid)
        verb.add_argument("--reason", type=types.reason, required=True)
        _add_dry_run(verb)
    drain = _operator_verb(
        verbs, "drain", "let a worker finish, give it nothing new", operator_commands.drain_worker
    )
    drain.add_argument("worker_id", type=types.ulid)
    drain.add_argument("--reason", type=types.reason, required=True)
    drain.add_argument("--within-s", type=types.seconds, default=900)
    _add_dry_run(drain)
    reattest = _operator_verb(
        verbs,
        "reattest",
        "demand new evidence of a worker; what it does not show in time ends its lease",
        operator_commands.reattest_worker,
    )
    reattest.add_argument("worker_id", type=types.ulid)
    reattest.add_argument("--reason", type=types.reason, required=True)
    reattest.add_argument("--new-key", action="store_true", help="and a new key")
    reattest.add_argument("--within-s", type=types.seconds, help="default: the fleet's policy")
    _add_dry_run(reattest)
    add_releases(verbs, _operator_verb)
    add_worker_programs(verbs)


def _add_dry_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--dry-run", action="store_true", help="show the worker as it is, and change nothing"
    )


def _grant(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    create = _operator_verb(verbs, "create", "approve one run", operator_commands.create_grant)
    create.add_argument("run_id", type=types.principal)
    create.add_argument("--tool", type=types.name, required=True)
    create.add_argument("--principal", type=types.principal, required=True)
    create.add_argument("--profile", type=types.name, required=True, help="the egress profile")
    create.add_argument("--worker", type=types.ulid, help="only this worker may do it")
    create.add_argument(
        "--read-only",
        action="store_true",
        help="only in a workspace that the run cannot write to (run --isolate --read-only)",
    )
    create.add_argument(
        "--ttl-s",
        type=types.seconds,
        default=900,
        help="how long the approval holds; the run, however often renewed, ends with it",
    )
    _operator_verb(verbs, "list", "every grant", operator_commands.list_grants)
    withdraw = _operator_verb(verbs, "withdraw", "take back", operator_commands.withdraw_grant)
    withdraw.add_argument("grant_id", type=types.ulid)
    withdraw.add_argument("--reason", type=types.reason, required=True)


def _lease(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    found = _operator_verb(
        verbs, "list", "leases: those that live, or have ended", operator_commands.list_leases
    )
    found.add_argument("--state", choices=tuple(LeasesThat), default="live", help="default: live")
    found.add_argument("--limit", type=types.rows, help="so many, the newest (default: all)")
    revoke = _operator_verb(verbs, "revoke", "end a lease now", operator_commands.revoke_lease)
    revoke.add_argument("lease_id", type=types.ulid)
    revoke.add_argument("--reason", type=types.reason, required=True)


def _violation(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    found = _operator_verb(verbs, "list", "evidence", operator_commands.list_violations)
    found.add_argument("--worker", type=types.ulid)
    found.add_argument("--limit", type=types.rows, default=100)


def _event(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    tail = _operator_verb(verbs, "tail", "the last events", event_commands.tail_events)
    tail.add_argument("--lines", type=types.rows, default=20)
    tail.add_argument("--after-seq", type=int, default=0)
    tail.add_argument("--follow", action="store_true", help="go on, also when the fleet was away")
    _operator_verb(verbs, "verify", "check the hash chain", event_commands.verify_events)
