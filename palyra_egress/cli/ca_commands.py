"""`palyra-egress ca`: the root that workers trust. A running proxy follows within a second."""

import json
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from palyra_egress.cli.system_stores import SystemStore, store_of, write_below
from palyra_egress.clock import now_utc
from palyra_egress.installation import Installation
from palyra_egress.proxy.tls.interception import InterceptionAuthority
from palyra_egress.proxy.tls.root_files import RootFiles, Roots
from palyra_fleet.cli.output import put, say
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.worker.environment import TABLE, Value

FILE_NAME: Final = "palyra-egress-{:.12}.crt"
INSTALL_WITHIN_S: Final = 120.0


def init(arguments: Namespace) -> int:
    """Make the root unless there is one, and write what workers use."""
    directory = _directory(arguments)
    is_new = not (directory / "root.pem").exists()
    authority = InterceptionAuthority.load_or_create(directory, now_utc())
    say("made a new root" if is_new else "there is a root already; nothing was changed")
    put(str(authority.root_path.absolute()))
    return ExitCode.DONE


def show(arguments: Namespace) -> int:
    """Every root with its state; 1 if the one that signs has ended."""
    roots = _files(arguments).load()
    rows = [
        {
            "state": state,
            "sha256": _fingerprint(certificate),
            "name": certificate.subject.rfc4514_string(),
            "ends": certificate.not_valid_after_utc.isoformat(),
        }
        for state, certificate in _by_state(roots)
    ]
    if arguments.output == "json":
        put(json.dumps(rows, indent=2))
    else:
        for row in rows:
            put(f"{row['state']:8}  {row['sha256']}  until {row['ends']:.10}  {row['name']}")
    has_ended = roots.signing.certificate.not_valid_after_utc <= now_utc()
    return ExitCode.NO if has_ended else ExitCode.DONE


def bundle(arguments: Namespace) -> int:
    """Print what workers need, in one form."""
    directory = _directory(arguments)
    roots = RootFiles(directory).load()
    if arguments.form == "roots":
        sys.stdout.write(_pem(roots))
        return ExitCode.DONE
    paths = InterceptionAuthority(RootFiles(directory), roots)
    combined, ours = paths.bundle_path.absolute(), paths.root_path.absolute()
    text = combined.read_text(encoding="utf-8") if combined.exists() else ""
    if not all(_one_pem(root) in text for root in roots.trusted):
        raise Trouble(
            ExitCode.YOURS,
            "the bundle is older than the roots",
            f"{combined} lacks one of them",
            "start the proxy, which writes it; a running one does within a second",
        )
    if arguments.form == "combined":
        sys.stdout.write(text)
        return ExitCode.DONE
    values = {Value.COMBINED_BUNDLE: str(combined), Value.PALYRA_CA: str(ours)}
    for row in TABLE:
        if row.value in values:
            put(f"export {row.name}={shlex.quote(values[row.value])}")
    return ExitCode.DONE


def install(arguments: Namespace) -> int:
    """Put each trusted root into the system's store, and let the system read it again."""
    roots = _files(arguments).load()
    prefix: Path = arguments.prefix
    store = store_of(prefix)
    if store is None:
        raise Trouble(
            ExitCode.YOURS,
            "this system's store is not known",
            f"none of the places that we know is there under {prefix}",
            "add the output of `palyra-egress ca bundle` by the system's own means",
        )
    files = {
        store.directory(prefix) / FILE_NAME.format(_fingerprint(root)): _one_pem(root)
        for root in roots.trusted
    }
    is_image = prefix != Path("/")
    if arguments.dry_run:
        for path in files:
            put(f"write {path}")
        put(f"{'in the image: ' if is_image else ''}run {' '.join(store.command)}")
        return ExitCode.DONE
    _write(prefix, files)
    if is_image:
        say(f"run in the image: {' '.join(store.command)}")
        return ExitCode.DONE
    _run(store)
    return ExitCode.DONE


def rotate(arguments: Namespace) -> int:
    """One step of a change of root; says what comes next."""
    files = _files(arguments)
    if arguments.activate:
        roots = files.activate()
        say("the new root signs from now on; the old one is still trusted")
        say("when no worker with the old bundle is left: palyra-egress ca rotate --retire")
    elif arguments.retire:
        roots = files.retire()
        say("the old root is trusted no more; `ca install` does not remove it from a system")
    else:
        roots = files.prepare(now_utc())
        say("a next root is made and trusted; it does not sign yet")
        say("when every worker has the new bundle: palyra-egress ca rotate --activate")
    for state, certificate in _by_state(roots):
        put(f"{state:8}  {_fingerprint(certificate)}")
    return ExitCode.DONE


def _directory(arguments: Namespace) -> Path:
    state: Path = arguments.state_dir or Installation.of_environment().egress_state
    return state / "ca"


def _files(arguments: Namespace) -> RootFiles:
    return RootFiles(_directory(arguments))


def _by_state(roots: Roots) -> list[tuple[str, x509.Certificate]]:
    found = [("signing", roots.signing.certificate), ("next", roots.coming), ("old", roots.old)]
    return [(state, one) for state, one in found if one is not None]


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _one_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _pem(roots: Roots) -> str:
    return "".join(_one_pem(root) for root in roots.trusted)


def _write(prefix: Path, files: dict[Path, str]) -> None:
    try:
        for path, content in files.items():
            write_below(prefix, path, content.encode("ascii"))
            say(f"wrote {path}")
    except OSError as error:
        raise Trouble(
            ExitCode.YOURS,
            "the system's store cannot be written",
            str(error),
            "call it with an account that may, or see --dry-run",
        ) from error


def _run(store: SystemStore) -> None:
    command: Sequence[str] = store.command
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        subprocess.run(  # noqa: S603 (a command of our own table)
            command, check=True, env=environment, timeout=INSTALL_WITHIN_S, stdout=sys.stderr
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Trouble(
            ExitCode.YOURS,
            "the system did not take the roots",
            f"{command[0]}: {error}",
            f"run `{' '.join(command)}` yourself",
        ) from error
    say(f"ran {' '.join(command)}")
