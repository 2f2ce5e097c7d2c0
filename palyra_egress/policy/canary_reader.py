"""Reads `canaries`: decoys that nothing has a reason to send, so that whoever sends one is caught.

Input: the fields of a file. Output: canaries with a value that stands in the file, or the name of a
secret that holds it. A value must be long and varied enough never to be found by chance. No problem
repeats a value: what stands there by mistake may be a real secret.
"""

import re
from typing import Final

from palyra_egress.policy.credential_reader import read_secret
from palyra_egress.policy.errors import ProblemCode, Problems
from palyra_egress.policy.fields import Fields
from palyra_egress.policy.language import CANARY
from palyra_egress.policy.schema import CanarySpec
from palyra_egress.policy.values import CANARY_PATTERN, EXPECTED_CANARY, MIN_CANARY_SIGNS
from palyra_fleet.strict_yaml.document import Mapping, Node, Scalar, Sequence

_VALUE: Final = re.compile(CANARY_PATTERN, re.ASCII)


def _read_value(fields: Fields) -> str | None:
    node = fields.node("value")
    if node is None:
        return None
    text = node.value if isinstance(node, Scalar) else None
    if isinstance(text, str) and _VALUE.fullmatch(text) and len(set(text)) >= MIN_CANARY_SIGNS:
        return text
    message = "'value' is none that could be watched for"
    fields.refuse(node.position, ProblemCode.BAD_VALUE, message, EXPECTED_CANARY)
    return None


def _read_canary(node: Node, problems: Problems) -> CanarySpec | None:
    if not isinstance(node, Mapping):
        problems.add(
            node.position,
            ProblemCode.WRONG_TYPE,
            "a canary is no mapping",
            expected="a mapping with id, and value or secret",
        )
        return None
    fields = Fields(node, CANARY, problems)
    if fields.has("value") == fields.has("secret"):
        given = "both a value and a secret" if fields.has("value") else "neither value nor secret"
        fields.refuse(
            node.position,
            ProblemCode.BAD_VALUE,
            f"a canary has {given}",
            "`value`, or `secret` with the name of the secret that holds it",
        )
    return CanarySpec(
        rule_id=fields.identifier("id"),
        position=node.position,
        value=_read_value(fields),
        secret=read_secret(fields) if fields.has("secret") else None,
        owner=fields.text("owner"),
        reason=fields.text("reason"),
        file=problems.file,
    )


def read_canaries(fields: Fields, problems: Problems) -> tuple[CanarySpec, ...]:
    """The canaries of a file, in its order."""
    listed = fields.node("canaries")
    if listed is None:
        return ()
    if not isinstance(listed, Sequence):  # perhaps a value: not quoted
        message = "'canaries' is no list"
        fields.refuse(listed.position, ProblemCode.WRONG_TYPE, message, "a list of canaries")
        return ()
    found = [_read_canary(node, problems) for node in listed.items]
    return tuple(canary for canary in found if canary is not None)
