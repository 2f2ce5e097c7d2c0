"""The arguments of `palyra-egress`. One function a noun; handlers live in modules of their own
and are imported when they are called.
"""

import argparse
from pathlib import Path

from palyra_egress.audit.segments import DEFAULT_SEGMENT_BYTES
from palyra_egress.cli.ca_parser import add_ca
from palyra_egress.cli.channel_arguments import add_channel_arguments, address
from palyra_egress.cli.deadline_arguments import add_deadline_arguments
from palyra_egress.cli.policy_commands import add_policy_commands
from palyra_egress.cli.secret_arguments import add_secret_arguments
from palyra_egress.cli.vault_parser import add_vault
from palyra_egress.cli.worker_parser import add_doctor, add_worker_commands
from palyra_egress.destination.listener import listener_of
from palyra_egress.proxy.bounds.caps import CAPS
from palyra_egress.proxy.http.trace_headers import TraceHeaders
from palyra_fleet.cli.command_parser import CommandParser
from palyra_fleet.cli.completion import add_completion
from palyra_fleet.cli.config_commands import add_config
from palyra_fleet.cli.configuration import EGRESS, add_config_argument
from palyra_fleet.cli.export_arguments import add_export_arguments
from palyra_fleet.cli.later import Later
from palyra_fleet.cli.log_arguments import add_log_arguments
from palyra_fleet.cli.trace_arguments import add_trace_arguments

type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_POLICY = Path("policies/coding-agent.yaml")
_MEBIBYTE = 1024 * 1024


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser: argparse.ArgumentParser = CommandParser(
        prog="palyra-egress", description="A fail-closed egress proxy for untrusted workers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_up(commands)
    add_worker_commands(commands, _later)
    _add_proxy(commands)
    add_doctor(commands, _later)
    add_completion(commands, make_parser)
    add_config(commands, EGRESS, make_parser)
    _add_audit(commands)
    add_ca(commands, _later)
    add_vault(commands, _later)
    add_policy_commands(commands)
    return parser


def _add_demo(commands: _Commands) -> None:
    demo = commands.add_parser(
        "demo", help="an allowed request, a refused one, a violation and a quarantine, for real"
    )
    demo.set_defaults(run=_later("demo_command", "demo"))


def _add_up(commands: _Commands) -> None:
    up = commands.add_parser("up", help="fleet, proxy and admin API in one process")
    _add_proxy_arguments(up)
    up.add_argument(
        "--admin",
        type=address,
        default=("127.0.0.1", 8081),
        metavar="HOST:PORT",
        help="where the admin API listens (default 127.0.0.1:8081; loopback only)",
    )
    up.add_argument(
        "--trust-capability",
        action="append",
        default=[],
        metavar="NAME",
        help="believe a launcher that says so of its worker (may be repeated; default none)",
    )
    up.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="attestors of the fleet, as TOML; see docs/attestation.md (default: launchers only)",
    )
    up.add_argument(
        "--two-person-release",
        action="store_true",
        help="a quarantined worker comes back only if one person asks and another approves",
    )
    up.add_argument(
        "--approval-rules",
        type=Path,
        metavar="FILE",
        help="rules that approve runs by themselves; see docs/approval-rules.md (default: none)",
    )
    add_export_arguments(up)
    up.set_defaults(run=_later("serve_commands", "up"))


def _add_proxy(commands: _Commands) -> None:
    proxy = commands.add_parser("proxy", help="the proxy as a process of its own")
    verbs = proxy.add_subparsers(required=True, metavar="VERB")
    serve = verbs.add_parser("serve", help="serve workers, with a fleet here or elsewhere")
    _add_proxy_arguments(serve)
    serve.add_argument("--state-dir", type=Path, required=True, help="keys, CA, audit log, spool")
    where = serve.add_mutually_exclusive_group(required=True)
    where.add_argument("--fleet-socket", type=Path, help="the fleet's Unix socket")
    where.add_argument(
        "--fleet",
        metavar="https://HOST:PORT",
        help="a fleet on another machine; this one must have paired as a proxy",
    )
    serve.add_argument(
        "--name", help="the name this proxy is enrolled under (paired: default by its device)"
    )
    serve.add_argument(
        "--device",
        type=Path,
        metavar="DIR",
        help="with --fleet: where `node install --kind proxy` put the pairing"
        " (default STATE_DIR/device)",
    )
    serve.add_argument(
        "--forbid",
        type=_listener,
        action="append",
        default=[],
        metavar="IP:PORT",
        help="never a target, whatever a rule says: the fleet's admin listener (may be repeated)",
    )
    serve.set_defaults(run=_later("serve_commands", "serve_proxy"))
    show = verbs.add_parser("show", help="what each worker does right now; 1 if it is not ready")
    show.add_argument("--state-dir", type=Path, help="the proxy's (default: from PALYRA_HOME)")
    show.add_argument("-o", "--output", choices=["table", "json"], default="table")
    show.set_defaults(run=_later("proxy_show_command", "show"))
    key = verbs.add_parser("key", help="print the public key to enrol (makes the key if needed)")
    key.add_argument("--state-dir", type=Path, required=True)
    key.set_defaults(run=_later("serve_commands", "proxy_key"))


def _add_proxy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        type=Path,
        default=DEFAULT_POLICY,
        metavar="FILE",
        help=f"the policy file (default {DEFAULT_POLICY}); changes are picked up",
    )
    parser.add_argument(
        "--listen",
        type=address,
        default=("127.0.0.1", 8080),
        metavar="HOST:PORT",
        help="where workers connect (default 127.0.0.1:8080)",
    )
    parser.add_argument(
        "--listen-socks",
        type=address,
        metavar="HOST:PORT",
        help="where workers speak SOCKS5 (default: nowhere); user and password are the lease's",
    )
    parser.add_argument(
        "--hosts-file", type=Path, metavar="FILE", help="names to resolve first, as in /etc/hosts"
    )
    parser.add_argument(
        "--audit-segment-mib",
        dest="audit_segment_bytes",
        type=_mebibytes,
        default=str(DEFAULT_SEGMENT_BYTES // _MEBIBYTE),  # as it would be given
        metavar="N",
        help="the audit log goes on in a new file beyond this size (default 256)",
    )
    parser.add_argument(
        "--approvers",
        type=Path,
        metavar="FILE",
        help="who must have approved the policy (docs/policy-approvals.md); without it nobody must",
    )
    parser.add_argument(
        "--extra-roots", type=Path, metavar="PEM", help="CAs to trust upstream beside the public"
    )
    _add_upstream_tls(parser)
    _add_caps(parser)
    add_deadline_arguments(parser)
    _add_health(parser)
    add_channel_arguments(parser)
    add_secret_arguments(parser)
    add_trace_arguments(parser)
    _add_trace_context(parser)
    add_log_arguments(parser, serves=True)
    add_config_argument(parser, EGRESS)


def _add_trace_context(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trace-context",
        choices=[one.value for one in TraceHeaders],
        default=TraceHeaders.PASS.value,
        help="what becomes of the traceparent, tracestate and baggage that a worker sends: they"
        " pass on with its request, or are dropped (default pass)",
    )


def _add_upstream_tls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--upstream-roots",
        action="append",
        default=[],
        metavar="NAME=PEM",
        help="CAs that rules may name in `upstream_tls`; read again on change (may be repeated)",
    )
    parser.add_argument(
        "--client-certificate",
        action="append",
        default=[],
        metavar="NAME=CERT,KEY",
        help="what rules may have shown to servers, or NAME=PEM with both; read again on change"
        " (may be repeated)",
    )


def _add_health(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--health",
        type=address,
        metavar="HOST:PORT",
        help="where /livez, /readyz and /metrics are answered (default nowhere)",
    )


def _add_caps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-connections",
        type=_count,
        default=CAPS.connections,
        metavar="N",
        help=f"connections of workers at once (default {CAPS.connections})",
    )
    parser.add_argument(
        "--max-connections-per-worker",
        type=_count,
        default=CAPS.connections_per_worker,
        metavar="N",
        help=f"of one worker (default {CAPS.connections_per_worker})",
    )
    parser.add_argument(
        "--max-openings-per-worker",
        type=_count,
        default=CAPS.openings_per_worker,
        metavar="N",
        help="tunnels of one worker whose TLS handshake is not over"
        f" (default {CAPS.openings_per_worker})",
    )
    parser.add_argument(
        "--max-new-leaves",
        type=_count,
        default=CAPS.new_leaves_per_minute,
        metavar="N",
        help="tunnels to hosts that have no certificate yet, of one worker in a minute"
        f" (default {CAPS.new_leaves_per_minute})",
    )
    parser.add_argument(
        "--max-further-upstreams",
        type=_count,
        default=CAPS.further_upstreams,
        metavar="N",
        help="servers' connections beyond the first of each worker's connection, in all"
        f" (default {CAPS.further_upstreams})",
    )
    parser.add_argument(
        "--max-lookups",
        type=_count,
        default=CAPS.lookups.at_once,
        metavar="N",
        help=f"names that are looked up at once (default {CAPS.lookups.at_once})",
    )
    parser.add_argument(
        "--max-lookups-per-worker",
        type=_count,
        default=CAPS.lookups.per_asker,
        metavar="N",
        help=f"for one worker (default {CAPS.lookups.per_asker})",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 1000000")
    return int(text)


def _listener(text: str) -> tuple[str, int]:
    try:
        return listener_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _mebibytes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_048_576:
        raise argparse.ArgumentTypeError("expected a whole number of MiB from 1 on")
    return int(text) * _MEBIBYTE


def _add_audit(commands: _Commands) -> None:
    audit = commands.add_parser("audit", help="the audit log")
    verbs = audit.add_subparsers(required=True, metavar="VERB")
    verify = verbs.add_parser("verify", help="check the hash chain and the signed checkpoints")
    verify.add_argument("file", type=Path)
    verify.add_argument(
        "--key", metavar="BASE64", help="the proxy's public key (`proxy key`): checks signatures"
    )
    verify.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="a checkpoint file kept elsewhere: shows whether the end was cut off since",
    )
    verify.add_argument("-o", "--output", choices=["text", "json"], default="text")
    verify.set_defaults(run=_later("audit_commands", "verify"))
    show = verbs.add_parser("show", help="print the entries of a log as JSON lines")
    _add_entry_choice(show)
    show.set_defaults(run=_later("audit_commands", "show"))
    export = verbs.add_parser("export", help="print the entries as events for a SIEM")
    export.add_argument("--to", choices=["ocsf"], required=True, help="OCSF 1.3.0, JSON lines")
    _add_entry_choice(export)
    export.set_defaults(run=_later("audit_commands", "export"))
    schema = verbs.add_parser("schema", help="print the JSON Schema of one line of the log")
    schema.set_defaults(run=_later("audit_commands", "schema"))


def _add_entry_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path)
    parser.add_argument("--denied", action="store_true", help="refusals only")
    parser.add_argument("--worker", help="one worker only")


def _later(module: str, handler: str) -> Later:
    """A handler that is imported when it is called: `run` must not wait for what serves."""
    return Later(f"palyra_egress.cli.{module}", handler)
