"""Runs `policy` commands as the program parses and runs them."""

import argparse

from palyra_egress.cli.policy_commands import add_policy_commands


def run_policy(*words: str) -> int:
    """The exit code of `palyra-egress policy <words>`."""
    parser = argparse.ArgumentParser()
    add_policy_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["policy", *words])
    code: int = args.run(args)
    return code
