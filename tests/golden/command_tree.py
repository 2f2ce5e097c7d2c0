"""Every command of both programs, out of their parsers, and the mistakes that can be made with it.

A command whose arguments have no sample here is found by the tests: it gets one, and its goldens.
"""

import argparse
import base64
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_egress.cli.main import main as egress
from palyra_egress.cli.parser import make_parser as egress_parser
from palyra_fleet.cli.main import main as fleet
from palyra_fleet.cli.parser import make_parser as fleet_parser
from palyra_fleet.cli.reference_page import commands

MAINS: Final = {"palyra-egress": egress, "palyra-fleet": fleet}
PARSERS: Final = {"palyra-egress": egress_parser(), "palyra-fleet": fleet_parser()}
WRONG: Final = ("?!", "", "x" * 600)
"""Values that no typed argument takes: the first that is refused is shown."""

_ULID: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SAMPLES: Final = {
    "approval_id": _ULID,
    "audit": "absent.jsonl",
    "approvers": "absent.yaml",
    "ca": "absent.pem",
    "ca_bundle": "absent-bundle.pem",
    "capability": "echo",
    "changes": "zone=a",
    "credentials_file": "absent.env",
    "device_id": _ULID,
    "enrolment": "127.0.0.1:1",
    "export": "ocsf",
    "file": "absent.file",
    "files": "absent.yaml",
    "from_file": "absent.file",
    "fleet_socket": "absent.sock",
    "grant_id": _ULID,
    "identity": "sample",
    "key": "absent.key",
    "launcher_key": "absent.key",
    "lease_id": _ULID,
    "name": "sample",
    "new": "absent-new.yaml",
    "node": "127.0.0.1:1",
    "old": "absent-old.yaml",
    "policy": "absent.yaml",
    "principal": "sample",
    "profile": "default",
    "program": "true",
    "proxy": "127.0.0.1:1",
    "public_key": base64.b64encode(bytes(32)).decode(),
    "reason": "sample",
    "release_id": _ULID,
    "request_id": _ULID,
    "run_id": "run-1",
    "request_url": "https://api.example/",
    "source": "absent.db",
    "from_": "absent.db",
    "state_dir": "absent",
    "token_id": _ULID,
    "tool": "sh",
    "url": "https://api.example/",
    "worker_id": _ULID,
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A command that can be run, with the words that name it."""

    words: tuple[str, ...]
    parser: argparse.ArgumentParser

    @property
    def name(self) -> str:
        return " ".join(self.words)

    @property
    def asks_the_fleet(self) -> bool:
        """Whether it is a question to the admin listener."""
        return {"url", "token_file", "output"} <= {action.dest for action in self.parser._actions}

    def asked(self) -> tuple[str, ...]:
        """The least that is enough: also what the parser leaves to the command to miss."""
        key = {"public_key": SAMPLES["public_key"]} if "enrol" in self.words else {}
        image = ("--image", "0" * 64) if "reference" in self.words[1:2] else ()
        runs = any(one.dest == "program" for one in self.parser._actions)
        return (
            *self.minimal(**key),
            *(image if self.words[-1] != "list" else ()),
            *(("--", "true") if runs else ()),
        )

    @property
    def answers_json(self) -> bool:
        return any(
            one.dest == "output" and "json" in (one.choices or ()) for one in self.parser._actions
        )

    def minimal(self, **instead: str) -> tuple[str, ...]:
        """The command with everything that it must be given, and nothing else."""
        return (*self.words, *self._arguments(instead))

    def _arguments(self, instead: dict[str, str]) -> Iterator[str]:
        groups = self.parser._mutually_exclusive_groups
        grouped = {one.dest for group in groups for one in group._group_actions}
        chosen = {group._group_actions[0].dest for group in groups if group.required}
        for action in self.parser._actions:
            needed = action.required and action.nargs != "*" and action.dest not in grouped
            if needed or action.dest in chosen or action.dest in instead:
                value = instead.get(action.dest) or _sample(action)
                yield from (action.option_strings[-1:] or ()) if action.option_strings else ()
                yield value

    def mistakes(self) -> Iterator[tuple[str, ...]]:
        """The command with nothing given, with a flag there is not, with each wrong value."""
        if self.minimal() != self.words:
            yield self.words
        yield (*self.minimal(), "--no-such-flag")
        for action in self.parser._actions:
            for value in _wrong_values(action):
                if action.option_strings:
                    yield (*self.minimal(), action.option_strings[-1], value)
                else:
                    yield self.minimal(**{action.dest: value})


def _sample(action: argparse.Action) -> str:
    if action.choices:
        return str(next(iter(action.choices)))
    assert action.dest in SAMPLES, f"tests/golden/command_tree.py has no sample of {action.dest!r}"
    return SAMPLES[action.dest]


def _wrong_values(action: argparse.Action) -> Iterator[str]:
    """The first value that it does not take, if there is one."""
    if action.nargs == 0 or (action.type in (None, Path, str) and not action.choices):
        return
    for value in WRONG:
        try:
            read = action.type(value) if callable(action.type) else value
        except (argparse.ArgumentTypeError, ValueError, TypeError):
            yield value
            return
        if action.choices is not None and read not in action.choices:
            yield value
            return


@functools.cache
def leaves() -> tuple[Leaf, ...]:
    """Every command that can be run, in the order of the parsers."""
    return tuple(
        Leaf(tuple(parser.prog.split()), parser)
        for top in PARSERS.values()
        for parser in commands(top)
        if not any(isinstance(one, argparse._SubParsersAction) for one in parser._actions)
    )
