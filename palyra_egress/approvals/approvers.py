"""Who may approve policies, and how many of them it takes: the approvers file, read strictly.

The file belongs to the proxy, not to the authors of policies: it lies outside the policies' folder,
is owned by the proxy's account and is 0600 (`read_approvers_file` refuses anything else).

    version: 1
    widening: 2      # approvals that a change needs which allows more
    narrowing: 1     # approvals that any other change needs; 0: tightening needs nobody
    approvers:
      - {name: ada, key: "base64 of 32 bytes"}

Names and keys stand once each: one person is one name with one key. Keys with which anybody can
sign (points of small order) are refused. Input of `read_approvers`: bytes; output: `Approvers`, or
PolicyFileError with every problem at its line.
"""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_egress.errors import OperatorMustAct
from palyra_egress.policy.document import read_document
from palyra_egress.policy.errors import PolicyFileError, ProblemCode, Problems
from palyra_egress.policy.fields import Fields
from palyra_egress.policy.language import Holds, Key, Number, Section
from palyra_egress.policy.values import EXPECTED_ID
from palyra_fleet.private_files import read_private
from palyra_fleet.strict_yaml.document import Mapping, Node, Position
from palyra_fleet.wire.keys import (
    PUBLIC_KEY_BYTES,
    KeyFileError,
    is_small_order,
    thumbprint_sha256,
)

MAX_APPROVERS_BYTES: Final = 64 * 1024
MAX_APPROVERS: Final = 64
TWO_PERSONS: Final = 2
EXPECTED_KEY: Final = "base64 of the 32 bytes of an Ed25519 public key, as `policy key new` prints"
_APPROVER: Final = Section(
    "an approver",
    (
        Key("name", Holds.IDENTIFIER, "who it is", required=EXPECTED_ID),
        Key("key", Holds.TEXT, "the person's public key", required=EXPECTED_KEY),
    ),
)
_APPROVERS: Final = Section(
    "an approvers file",
    (
        Key("version", Holds.VERSION, "the version of this file's form", required="version: 1"),
        Key("widening", Holds.STRIKES, "approvals for a change that allows more"),
        Key("narrowing", Holds.STRIKES, "approvals for any other change"),
        Key("approvers", _APPROVER, "who may", Number.LIST, required="a list of approvers"),
    ),
)


@dataclass(frozen=True, slots=True)
class Approver:
    """One person: the name, and the 32 raw bytes of the public key."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> str:
        return thumbprint_sha256(self.public_key)


@dataclass(frozen=True, slots=True)
class Approvers:
    """Everybody whose approval counts, and how many a change needs."""

    people: tuple[Approver, ...]
    widening: int = TWO_PERSONS
    narrowing: int = 1

    def of_key(self, key_id: str) -> Approver | None:
        return next((person for person in self.people if person.key_id == key_id), None)


def _read_key(fields: Fields) -> bytes | None:
    node, text = fields.node("key"), fields.text("key")
    if node is None or text is None:
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        fields.refuse(node.position, ProblemCode.BAD_VALUE, "'key' is no public key", EXPECTED_KEY)
        return None
    if is_small_order(key):
        what = "anybody can sign with this key: it is a point of small order"
        fields.refuse(node.position, ProblemCode.NEVER_ALLOWED, what, EXPECTED_KEY)
        return None
    return key


def _read_person(node: Node, fields: Fields) -> Approver | None:
    if not isinstance(node, Mapping):
        fields.wrong(node, "approvers", "a list of {name: …, key: …}")
        return None
    own = Fields(node, _APPROVER, fields.problems)
    name, key = own.identifier("name"), _read_key(own)
    return Approver(name.lower(), key) if name and key is not None else None


def _check_distinct(people: list[tuple[Approver, Position]], problems: Problems) -> None:
    names: dict[str, Position] = {}
    keys: dict[bytes, Position] = {}
    for person, position in people:
        for what, first in (
            (f"the name {person.name!r}", names.get(person.name)),
            (f"the key of {person.name!r}", keys.get(person.public_key)),
        ):
            if first is not None:
                message = f"{what} stands on line {first.line} already"
                expected = "one name and one key for each person"
                problems.add(position, ProblemCode.DUPLICATE_ID, message, expected=expected)
        names.setdefault(person.name, position)
        keys.setdefault(person.public_key, position)


def _whole(fields: Fields, name: str, low: int, high: int, default: int) -> int:
    found = fields.whole(name, low, high)
    return default if found is None else found


def read_approvers(source: bytes, file: str) -> Approvers:
    """The approvers that a file names; raises PolicyFileError with every problem."""
    problems = Problems(file)
    root = read_document(source, problems)
    if not isinstance(root, Mapping):
        if root is not None:
            what, expected = "this is no mapping", "version, widening, narrowing, approvers"
            problems.add(root.position, ProblemCode.WRONG_TYPE, what, expected=expected)
        problems.raise_all()
    fields = Fields(root, _APPROVERS, problems)
    _whole(fields, "version", 1, 1, 1)
    widening = _whole(fields, "widening", TWO_PERSONS, MAX_APPROVERS, TWO_PERSONS)
    narrowing = _whole(fields, "narrowing", 0, widening, 1)
    nodes = fields.items("approvers", "approvers") or ()
    read = [(_read_person(node, fields), node.position) for node in nodes[:MAX_APPROVERS]]
    people = [(person, position) for person, position in read if person is not None]
    _check_distinct(people, problems)
    if not problems.found and not widening <= len(nodes) <= MAX_APPROVERS:
        what = f"{len(nodes)} approvers stand here and a change that widens needs {widening}"
        place = root.entries["approvers"][0].position
        expected = f"{widening} to {MAX_APPROVERS} approvers"
        problems.add(place, ProblemCode.BAD_VALUE, what, expected=expected)
    if problems.found:
        problems.raise_all()
    return Approvers(tuple(person for person, _ in people), widening, narrowing)


class ApproversFileRefused(OperatorMustAct):
    """The approvers file cannot be trusted or read; nothing new is put in force."""


def _holders(path: Path) -> list[Path]:
    """The real folders of everything that this path goes through, and of what it leads to: who may
    write in one of them says which file is read."""
    whole = path.absolute()
    steps = [step for step in (whole, *whole.parents) if step.name not in {"..", ""}]
    return [*(step.parent.resolve() for step in steps), path.resolve().parent]


def read_approvers_file(path: Path, policy_file: Path) -> Approvers:
    """The approvers of a proxy, whose policy is `policy_file`. Raises ApproversFileRefused."""
    folders = (policy_file.parent.resolve(), policy_file.resolve().parent)
    if any(holder.is_relative_to(folder) for holder in _holders(path) for folder in folders):
        raise ApproversFileRefused(
            f"{path}: lies in {folders[0]}, with the policies, and whoever may write policies must "
            "not say who approves them; expected a file elsewhere"
        )
    try:
        return read_approvers(read_private(path, MAX_APPROVERS_BYTES), str(path))
    except (KeyFileError, PolicyFileError) as error:
        raise ApproversFileRefused(str(error)) from error
