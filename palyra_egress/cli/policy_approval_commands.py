"""`policy key new`, `approve` and `approvals`: who signed a policy, and whether that is enough."""

import argparse
import base64
from pathlib import Path

from palyra_egress.approvals.accepted import Accepted, read_accepted
from palyra_egress.approvals.approvers import (
    MAX_APPROVERS_BYTES,
    Approvers,
    ApproversFileRefused,
    read_approvers,
    read_approvers_file,
)
from palyra_egress.approvals.envelope import (
    MAX_SERIAL,
    PURPOSE,
    ApprovalPayload,
    approvals_path,
    next_serial,
    sign_approval,
    with_approval,
)
from palyra_egress.approvals.gate import ApprovalsUnreadable, read_approvals_of, widening_since
from palyra_egress.approvals.weighing import LineFate, Proposal, Weighing, weigh
from palyra_egress.cli.policy_answers import (
    ANSWER_IS_NO,
    DONE,
    YOURS_TO_FIX,
    fail,
    put,
    put_json,
    put_lines,
    read_named,
    say,
    write_whole,
)
from palyra_egress.clock import now_unix_ms
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.findings import as_rows
from palyra_egress.policy.load import read_files
from palyra_egress.policy.values import write_time
from palyra_fleet.wire.keys import SigningKey


def key_new(args: argparse.Namespace) -> int:
    """`policy key new FILE --name NAME`: a private key; the row with the public one is printed."""
    path = Path(args.file)
    if path.exists() or path.is_symlink():
        say(f"{path}: is there already; expected a new file, so that no key is lost")
        return YOURS_TO_FIX
    key = SigningKey.load_or_create(path)
    public = base64.b64encode(key.public_key).decode()
    say(f"{path}: the private key, for its owner only; for the approvers file:")
    put(f'  - {{name: {args.name}, key: "{public}"}}')
    return DONE


def approve(args: argparse.Namespace) -> int:
    """`policy approve FILE --key KEY --name NAME`: add one person's signature."""
    file = Path(args.file)
    try:
        policy = read_named(args.file)
        accepted = _compared_with(args)
        lines = read_approvals_of(file)
    except PolicyFileError as error:
        return fail("text", error)
    except ApprovalsUnreadable as error:
        say(str(error))
        return YOURS_TO_FIX
    serial = args.serial or next_serial(lines, policy.digest)
    payload = ApprovalPayload(
        purpose=PURPOSE,
        policy_name=policy.name,
        policy_digest=policy.digest,
        serial=serial,
        approver=args.name,
        approved_at_unix_ms=now_unix_ms(),
    )
    envelope = sign_approval(SigningKey.load(Path(args.key)), payload)
    write_whole(approvals_path(file), with_approval(lines, envelope, payload))
    put(f"{file}: approved by {args.name} as number {serial}: {policy.name}, {policy.digest}")
    if accepted is not None:
        widening = widening_since(accepted, policy, file) or ()
        put_lines(f"  widens: {change.what} [{change.position.line}]" for change in widening)
        put(f"  {len(widening)} changes widen")
    return DONE


def approvals(args: argparse.Namespace) -> int:
    """`policy approvals FILE --approvers FILE`: who approved what, and what is missing."""
    try:
        policy = read_named(args.file)
        weighing = weigh_named(args, policy)
    except PolicyFileError as error:
        return fail(args.output, error)
    except ApprovalsUnreadable as error:
        say(str(error))
        return YOURS_TO_FIX
    if args.output == "json":
        put_json({"policy": policy.name, "digest": policy.digest, **approval_row(weighing)})
    else:
        put_lines(_lines(weighing))
        put(f"{args.file}: {sentence(weighing)}")
    return DONE if weighing.is_enough else ANSWER_IS_NO


def weigh_named(args: argparse.Namespace, policy: CompiledPolicy) -> Weighing:
    """The weighing of `args.file` by `args.approvers`. Raises PolicyFileError and others."""
    file, approvers_file = Path(args.file), Path(args.approvers)
    approvers = _read_approvers(approvers_file, file)
    accepted = _compared_with(args)
    return weigh(
        approvers,
        read_approvals_of(file),
        Proposal(policy.name, policy.digest),
        accepted,
        widening_since(accepted, policy, file),
    )


def sentence(weighing: Weighing) -> str:
    word = "approved" if weighing.is_enough else "NOT approved"
    return f"{word}: {weighing.sentence}"


def approval_row(weighing: Weighing) -> dict[str, object]:
    """A weighing for programs."""
    changes = weighing.widening
    return {
        "approved": weighing.is_enough,
        "needed": weighing.needed,
        "missing": weighing.missing,
        "approved_by": list(weighing.approved_by),
        "serial": weighing.serial,
        "lowest_serial": weighing.lowest_serial,
        "why": weighing.why,
        "widening": None if changes is None else as_rows([change.finding for change in changes]),
        "approvals": [_fate_row(fate) for fate in weighing.lines],
    }


def _fate_row(fate: LineFate) -> dict[str, object]:
    payload = fate.approval
    known = {} if payload is None else payload.model_dump(mode="json", exclude={"purpose"})
    return {"line": fate.number, "refused": fate.refused, **known}


def _lines(weighing: Weighing) -> list[str]:
    lines: list[str] = []
    for fate in weighing.lines:
        payload = fate.approval
        who = "?" if payload is None else f"{payload.approver} as number {payload.serial}"
        when = "" if payload is None else f" at {write_time(payload.approved_at_unix_ms)}"
        if fate.refused is not None:
            lines.append(f"  line {fate.number}: {who}{when}: {fate.refused}")
        elif payload is not None and payload.serial == weighing.serial:
            lines.append(f"  line {fate.number}: {who}{when}: counts")
        else:
            why = f"another serial than {weighing.serial}, and approvals count together by serial"
            lines.append(f"  line {fate.number}: {who}{when}: {why}")
    lines += [f"  widens: {text}" for text in weighing.widening_lines()]
    if not weighing.is_enough:
        lines.append(f"  the lowest serial that counts: {weighing.lowest_serial}")
    return lines


def _read_approvers(path: Path, policy_file: Path) -> Approvers:
    """The approvers as a check sees them; says where a proxy would be stricter."""
    try:
        return read_approvers_file(path, policy_file)
    except ApproversFileRefused as refused:
        with path.open("rb") as file:
            approvers = read_approvers(file.read(MAX_APPROVERS_BYTES), str(path))
        say(f"a proxy would refuse this approvers file: {refused}")
        return approvers


def _compared_with(args: argparse.Namespace) -> Accepted | None:
    """What a proxy last accepted, or a file to compare with in its place."""
    if args.replaces is not None:
        files = read_files(Path(args.replaces), args.replaces)
        return Accepted(0, tuple(files.sources), ())
    return None if args.state_dir is None else read_accepted(Path(args.state_dir))


def _serial(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SERIAL:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MAX_SERIAL}")
    return int(text)


def _approver_name(text: str) -> str:
    word = text.lower()
    if not word.isascii() or not word.replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise argparse.ArgumentTypeError("expected a name of letters, digits, '.', '_', '-'")
    return word


def add_compared_with(parser: argparse.ArgumentParser) -> None:
    """What a change is compared with."""
    with_what = parser.add_mutually_exclusive_group()
    with_what.add_argument(
        "--state-dir", metavar="DIR", help="compare with what the proxy of this folder accepted"
    )
    with_what.add_argument("--replaces", metavar="OLD", help="compare with this policy file")


def add_approvers(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--approvers", required=required, metavar="FILE", help="who may approve, and how many"
    )
    add_compared_with(parser)


def add_key_command(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    new = verbs.add_parser("new", help="make a private key (0600, never printed)")
    new.add_argument("file", metavar="FILE", help="where the private key goes")
    new.add_argument("--name", required=True, type=_approver_name, help="the person's name")
    new.set_defaults(run=key_new)


def add_approve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--key", required=True, metavar="FILE", help="the person's private key")
    parser.add_argument("--name", required=True, type=_approver_name, help="the person's name")
    parser.add_argument(
        "--serial",
        type=_serial,
        metavar="N",
        help="the number of this change (default: what others approved it as, or the next)",
    )
    add_compared_with(parser)
    parser.set_defaults(run=approve)
