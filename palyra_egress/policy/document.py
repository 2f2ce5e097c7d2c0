"""One policy file as a tree (`palyra_fleet.strict_yaml`), its mistakes as problems."""

from typing import Final

from palyra_egress.policy.errors import ProblemCode, Problems
from palyra_fleet.strict_yaml.document import Fault, Node, read_yaml

MAX_BYTES: Final = 4 * 1024 * 1024
_CODES: Final = {fault: ProblemCode(fault.value) for fault in Fault}
"""Made at once, so that a fault without its code cannot wait for the file that has it."""


def read_document(source: bytes, problems: Problems) -> Node | None:
    """The tree of one file; None if there is none. What is wrong is added to `problems`."""
    document = read_yaml(source, max_bytes=MAX_BYTES, what="a policy")
    for mistake in document.mistakes:
        problems.add(
            mistake.position, _CODES[mistake.fault], mistake.message, expected=mistake.expected
        )
    return document.root
