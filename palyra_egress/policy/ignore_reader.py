"""Reads `lint: ignore:`, the findings that somebody decided to live with.

Each ignore names a code, a reason and the date on which the finding comes back, and optionally the
rule or the profile it is about. A code that is unknown, or that is about ignores themselves, is an
error: an ignore with a typing mistake must not look as if it did something.
"""

from palyra_egress.policy.errors import ProblemCode, Problems
from palyra_egress.policy.fields import Fields, describe
from palyra_egress.policy.language import IGNORE
from palyra_egress.policy.lint_codes import IGNORABLE, LintCode
from palyra_egress.policy.schema import LintIgnore
from palyra_fleet.nearest_word import nearest
from palyra_fleet.strict_yaml.document import Mapping, Node


def _read_ignore(node: Node, problems: Problems) -> LintIgnore | None:
    if not isinstance(node, Mapping):
        problems.add(
            node.position,
            ProblemCode.WRONG_TYPE,
            f"an ignore is {describe(node)}",
            expected="a mapping with code, reason and until",
        )
        return None
    fields = Fields(node, IGNORE, problems)
    code, code_node = fields.text("code"), fields.node("code")
    reason, until_unix_ms = fields.text("reason"), fields.moment("until")
    if code is not None and code_node is not None and code not in IGNORABLE:
        fields.refuse(
            code_node.position,
            ProblemCode.BAD_VALUE,
            f"no finding that can be ignored is called {code[:60]!r}",
            f"one of {', '.join(IGNORABLE)}",
            nearest(code, IGNORABLE),
        )
        return None
    rule_id, profile = fields.text("rule"), fields.text("profile")
    if code is None or reason is None or until_unix_ms is None:
        return None
    return LintIgnore(
        node.position, LintCode(code), rule_id, profile, reason, until_unix_ms, problems.file
    )


def read_ignores(fields: Fields | None, problems: Problems) -> tuple[LintIgnore, ...]:
    """The ignores of a file, in its order."""
    if fields is None:
        return ()
    ignores = [_read_ignore(node, problems) for node in fields.items("ignore", "ignores") or ()]
    return tuple(ignore for ignore in ignores if ignore is not None)
