"""`audit verify` and `audit show`: the log, checked and read offline."""

import json
from argparse import Namespace

from palyra_egress.audit.chain import ChainBroken
from palyra_egress.audit.reading import entries, verify_file
from palyra_fleet.cli.output import put
from palyra_fleet.cli.trouble import ExitCode, Trouble


def verify(arguments: Namespace) -> int:
    """Walk the hash chain from the first line to the last."""
    try:
        head = verify_file(arguments.file)
    except ChainBroken as broken:
        raise chain_trouble(broken) from broken
    except OSError as error:
        raise reading_trouble(error) from error
    put(f"{arguments.file}: {head.seq} entries, the chain holds; last digest {head.sha256}")
    return ExitCode.DONE


def show(arguments: Namespace) -> int:
    """Print verdicts, newest last; refusals only with --denied."""
    try:
        for entry in entries(arguments.file):
            if arguments.denied and entry.get("effect") != "deny":
                continue
            if arguments.worker and entry.get("worker_id") != arguments.worker:
                continue
            put(json.dumps(entry))
    except ChainBroken as broken:
        raise chain_trouble(broken) from broken
    except OSError as error:
        raise reading_trouble(error) from error
    return ExitCode.DONE


def chain_trouble(broken: ChainBroken) -> Trouble:
    """The words for a log that does not verify."""
    return Trouble(
        ExitCode.NO,
        "the audit log does not verify",
        str(broken),
        "treat everything from there on as tampered with",
    )


def reading_trouble(error: OSError) -> Trouble:
    """The words for a log that cannot be read."""
    return Trouble(
        ExitCode.YOURS,
        "the audit log cannot be read",
        f"{error.filename}: {error.strerror}",
        "name the file; the embedded installation writes var/egress/audit.jsonl",
    )
