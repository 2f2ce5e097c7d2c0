"""`policy import`: translate another tool's policy file, on standard output.

Exit codes: 0 all of it is there, or `--partial` accepts what is not; 1 something meant is not
imported (the policy is printed all the same, each loss as a comment); 2 the file is not readable,
not of that format, or cannot be carried without allowing more than it does (nothing is printed).
"""

import argparse
import sys
from pathlib import Path

from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.importers.draft import ImportRefused
from palyra_egress.policy.importers.translate import Source, import_policy
from palyra_egress.policy.load import read_policy_bytes

DONE, SOMETHING_IS_MISSING, YOURS_TO_FIX = 0, 1, 2


def import_file(args: argparse.Namespace) -> int:
    """Prints the translated policy; tells on standard error how much of it is missing."""
    try:
        data = read_policy_bytes(Path(args.file))
        imported = import_policy(Source(args.source), data, args.file, args.profile)
    except PolicyFileError as error:
        sys.stderr.write(f"{error}\n")
        return YOURS_TO_FIX
    except ImportRefused as error:
        sys.stderr.write(f"{args.file}: {error}\n")
        return YOURS_TO_FIX
    sys.stdout.write(imported.text)
    if not imported.dropped:
        return DONE
    sys.stderr.write(
        f"{args.file}: {len(imported.dropped)} not imported; the comments say what and why\n"
    )
    return DONE if args.partial else SOMETHING_IS_MISSING


def add_import_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `import` to the `policy` commands."""
    parser = commands.add_parser("import", help="translate another tool's policy file into ours")
    parser.add_argument("file", help="the other tool's file")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        choices=[source.value for source in Source],
        help="the tool whose format it is",
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help="the profile to make; for smokescreen, the one service to import",
    )
    parser.add_argument(
        "--partial", action="store_true", help="exit 0 even if something is not imported"
    )
    parser.set_defaults(run=import_file)
