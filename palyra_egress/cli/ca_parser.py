"""The arguments of `palyra-egress ca`."""

import argparse
from collections.abc import Callable
from pathlib import Path

type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]
type _Later = Callable[[str, str], Callable[[argparse.Namespace], int]]


def add_ca(commands: _Commands, later: _Later) -> None:
    """What workers trust: made, shown, handed out, installed, changed. See docs/ca.md."""
    ca = commands.add_parser("ca", help="the root that workers trust for inspected TLS")
    verbs = ca.add_subparsers(required=True, metavar="VERB")
    init = verbs.add_parser("init", help="make the root, if there is none")
    show = verbs.add_parser("show", help="the roots: which signs, which is trusted, until when")
    show.add_argument("-o", "--output", choices=["table", "json"], default="table")
    bundle = verbs.add_parser("bundle", help="print what workers need")
    bundle.add_argument(
        "--form",
        choices=["roots", "combined", "env"],
        default="roots",
        help="roots: ours alone (PEM); combined: with the public ones; env: variables for a shell",
    )
    install = verbs.add_parser("install", help="put our roots into this system's store")
    install.add_argument("--dry-run", action="store_true", help="say what would be done")
    install.add_argument(
        "--prefix",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="of an image that is being built: only files are put there, nothing is run",
    )
    rotate = verbs.add_parser("rotate", help="change the root by overlap, in three steps")
    step = rotate.add_mutually_exclusive_group()
    step.add_argument(
        "--activate", action="store_true", help="second step: the next root signs from now on"
    )
    step.add_argument(
        "--retire", action="store_true", help="last step: the old root is trusted no more"
    )
    for verb, name in (
        (init, "init"),
        (show, "show"),
        (bundle, "bundle"),
        (install, "install"),
        (rotate, "rotate"),
    ):
        verb.add_argument("--state-dir", type=Path, help="the proxy's (default: from PALYRA_HOME)")
        verb.set_defaults(run=later("ca_commands", name))
