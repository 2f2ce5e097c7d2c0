"""`audit verify`, `show`, `export` and `schema`: the log, checked and read offline.

A log of several files is named by the one that is written; its full files beside it are read first.
"""

import base64
import json
from argparse import Namespace
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from palyra_egress.audit.chain import AuditFields, ChainBroken
from palyra_egress.audit.checkpoint import read_checkpoint
from palyra_egress.audit.entry_schema import schema_text
from palyra_egress.audit.ocsf import ocsf_event
from palyra_egress.audit.reading import Verified, entries, verify_file
from palyra_fleet.cli.output import put, say
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.wire.keys import PUBLIC_KEY_BYTES


def verify(arguments: Namespace) -> int:
    """Walk the hash chain from the first entry to the last, and check what was signed."""
    key = None if arguments.key is None else _public_key(arguments.key)
    try:
        outside = None if arguments.checkpoint is None else read_checkpoint(arguments.checkpoint)
        found = verify_file(arguments.file, key, outside)
    except ChainBroken as broken:
        raise chain_trouble(broken) from broken
    except OSError as error:
        raise reading_trouble(error) from error
    if arguments.output == "json":
        put(json.dumps(_verified_row(arguments.file, found), indent=2))
    else:
        for line in _verified_lines(arguments.file, found):
            put(line)
    return ExitCode.DONE


def _verified_row(file: Path, found: Verified) -> dict[str, object]:
    """What held, for programs. What does not hold is told on stderr, with exit code 1."""
    return {
        "file": str(file),
        "files": found.files,
        "entries": found.entries,
        "first_seq": found.first_seq,
        "last_seq": found.head.seq,
        "last_sha256": found.head.sha256,
        "checkpoints": found.checkpoints,
        "signatures_checked": found.signatures_checked,
        "signed_by": sorted(found.signed_by),
        "unsigned_tail": found.unsigned_tail,
    }


def _verified_lines(file: Path, found: Verified) -> Iterator[str]:
    files = "" if found.files == 1 else f" in {found.files} files"
    yield f"{file}: {found.entries} entries{files}, the chain holds"
    yield f"  last entry {found.head.seq}, digest {found.head.sha256}"
    if found.first_seq > 1:
        yield f"  begins with entry {found.first_seq}: older files are not here"
    if not found.checkpoints:
        yield "  no checkpoints: nothing here is signed"
        return
    signed = "signatures valid" if found.signatures_checked else "signatures not checked (--key)"
    yield f"  {found.checkpoints} checkpoints, {signed}"
    yield f"  {found.unsigned_tail} entries after the last checkpoint"
    if len(found.signed_by) > 1:
        yield f"  signed with {len(found.signed_by)} different keys"


def _public_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise Trouble(
            ExitCode.YOURS,
            "--key is not a public key",
            "expected 32 bytes in base64",
            "`palyra-egress proxy key --state-dir DIR` prints it",
        )
    return key


def show(arguments: Namespace) -> int:
    """Print entries as they stand in the log, oldest first; refusals only with --denied."""
    for entry in _chosen(arguments):
        put(json.dumps(entry))
    return ExitCode.DONE


def export(arguments: Namespace) -> int:
    """Print entries in another schema, oldest first; what has no place there is counted."""
    left_out = 0
    product = version("palyra-egress-fleet")
    for entry in _chosen(arguments):
        event = ocsf_event(entry, product)
        if event is None:
            left_out += 1
        else:
            put(json.dumps(event))
    if left_out:
        say(f"{left_out} entries of the log itself (checkpoints, receipts, …) have no OCSF class")
    return ExitCode.DONE


def schema(_arguments: Namespace) -> int:
    """Print the JSON Schema of one line of the log."""
    put(schema_text().rstrip())
    return ExitCode.DONE


def _chosen(arguments: Namespace) -> Iterator[AuditFields]:
    try:
        for entry in entries(arguments.file):
            if arguments.denied and entry.get("effect") != "deny":
                continue
            if arguments.worker and entry.get("worker_id") != arguments.worker:
                continue
            yield entry
    except ChainBroken as broken:
        raise chain_trouble(broken) from broken
    except OSError as error:
        raise reading_trouble(error) from error


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
