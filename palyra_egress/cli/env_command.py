"""`palyra-egress env`: the variables that lead a program to the proxy, for a shell to read.

The variables are the table of `worker.environment`, the one that `run` uses. What is inherited and
would lead around the proxy is unset. A lease's credential comes from a private file and stands in
what is printed: a secret. Without one the proxy's URL has none, for workers that the proxy knows by
another channel (docs/channels.md). Quoting: `sh(1)`; fish's single quotes; PowerShell's, which end
at typographic quotes as well; Docker's env files, which quote nothing.
"""

import json
import shlex
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from palyra_egress.cli.channel_arguments import address
from palyra_egress.installation import EgressNote, Installation, written
from palyra_egress.proxy.identity import ProxyCredentials, lease_credentials
from palyra_fleet.cli.output import put
from palyra_fleet.cli.trouble import ExitCode, Trouble, reason_of
from palyra_fleet.private_files import read_private
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.worker.environment import (
    DROPPED_PROXY_NAMES,
    EgressAccess,
    egress_environment,
)

_MAX_BYTES: Final = 4096
_POWERSHELL_QUOTES: Final = "'\u2018\u2019\u201a\u201b"

type Form = Callable[[Mapping[str, str], Iterable[str]], str]


def env(arguments: Namespace) -> int:
    """Print the variables in the form that was asked for."""
    variables = egress_environment(_access(arguments))
    unset = sorted(
        spelling
        for name in DROPPED_PROXY_NAMES
        for spelling in (name, name.upper())
        if spelling not in variables
    )
    put(FORMS[arguments.shell](variables, unset))
    return ExitCode.DONE


def for_sh(variables: Mapping[str, str], unset: Iterable[str]) -> str:
    """For `eval "$(…)"` in any POSIX shell."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([f"unset {' '.join(unset)}", *lines])


def for_fish(variables: Mapping[str, str], unset: Iterable[str]) -> str:
    """For `… | source`."""
    lines = [f"set -gx {name} {_fish(value)}" for name, value in variables.items()]
    return "\n".join([*(f"set -e {name}" for name in unset), *lines])


def for_powershell(variables: Mapping[str, str], unset: Iterable[str]) -> str:
    """For `… | Out-String | Invoke-Expression`."""
    lines = [f"$Env:{name} = {_powershell(value)}" for name, value in variables.items()]
    gone = [f"Remove-Item Env:{name} -ErrorAction SilentlyContinue" for name in unset]
    return "\n".join([*gone, *lines])


def for_docker(variables: Mapping[str, str], _unset: Iterable[str]) -> str:
    """An env file. A container inherits nothing, so nothing is unset. Raises Trouble."""
    for name, value in variables.items():
        if "\n" in value or "\r" in value:
            raise Trouble(
                ExitCode.YOURS,
                "an env file cannot say this",
                f"{name} has a line break in it",
                "put the files where no path has one",
            )
    return "\n".join(f"{name}={value}" for name, value in variables.items())


def for_json(variables: Mapping[str, str], unset: Iterable[str]) -> str:
    """For programs: what to set and what to unset."""
    return json.dumps({"set": dict(variables), "unset": list(unset)}, indent=2)


FORMS: Final[Mapping[str, Form]] = {
    "sh": for_sh,
    "fish": for_fish,
    "pwsh": for_powershell,
    "docker": for_docker,
    "json": for_json,
}


def _fish(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _powershell(value: str) -> str:
    doubled = "".join(sign * 2 if sign in _POWERSHELL_QUOTES else sign for sign in value)
    return f"'{doubled}'"


def _access(arguments: Namespace) -> EgressAccess:
    note = None if _is_complete(arguments) else _note()
    credentials = _credentials(arguments.credentials_file)
    socks = written(arguments.socks_address) if arguments.socks_address else ""
    if arguments.socks and not socks:
        socks = "" if note is None else note.socks
        if not socks:
            raise Trouble(
                ExitCode.YOURS,
                "SOCKS cannot be used here",
                "this installation does not listen for it",
                "start it with --listen-socks, or pass --socks-address",
            )
    return EgressAccess(
        proxy_address=written(arguments.proxy or address(note.proxy if note else "")),
        lease_id="" if credentials is None else credentials.lease_id,
        egress_secret="" if credentials is None else credentials.secret,
        combined_bundle=(arguments.ca_bundle or Path(note.bundle_file if note else "")).absolute(),
        palyra_ca=(arguments.ca or Path(note.ca_file if note else "")).absolute(),
        socks_address=socks,
    )


def _is_complete(arguments: Namespace) -> bool:
    """Whether the flags say everything, so that no installation need run here."""
    socks_known = not arguments.socks or arguments.socks_address
    return bool(arguments.proxy and arguments.ca and arguments.ca_bundle and socks_known)


def _credentials(file: Path | None) -> ProxyCredentials | None:
    """`LEASE_ID:SECRET` out of a private file. Raises Trouble, which never says its content."""
    if file is None:
        return None
    try:
        found = lease_credentials(read_private(file, _MAX_BYTES).decode("ascii").strip())
    except (KeyFileError, UnicodeDecodeError) as error:
        why = str(error) if isinstance(error, KeyFileError) else f"{file}: is not ASCII"
        raise _no_credentials(why) from None
    if found is None:
        raise _no_credentials(f"{file}: expected one line, LEASE_ID:SECRET")
    return found


def _no_credentials(why: str) -> Trouble:
    remedy = "write the lease's id and egress secret there, mode 600"
    return Trouble(ExitCode.YOURS, "the lease's credential cannot be used", why, remedy)


def _note() -> EgressNote:
    path = Installation.of_environment().note
    try:
        return EgressNote.read(path)
    except (OSError, ValueError) as error:
        raise Trouble(
            ExitCode.YOURS,
            "no proxy is known here",
            f"{path}: {reason_of(error)}",
            "start it, set PALYRA_HOME, or pass --proxy, --ca and --ca-bundle",
        ) from error
