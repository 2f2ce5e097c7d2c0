"""Reads the `credentials` of one rule: which secret its requests carry, in which header and form.

Input: the fields of a rule. Output: bindings without a rule id, which compiling adds. A rule with
credentials speaks https inside inspected tunnels and nothing else, because a secret is never added
over anything but verified TLS. No problem repeats what stands under `secret`: it may be one.
"""

import re
from typing import Final

from palyra_egress.credentials.binding import (
    SECRET_SLOT,
    CredentialBinding,
    SecretRef,
    SecretRefRefused,
)
from palyra_egress.credentials.header_names import EXPECTED_HEADER, header_problem, usual_header
from palyra_egress.policy.errors import ProblemCode
from palyra_egress.policy.fields import Fields, describe
from palyra_egress.policy.language import CREDENTIAL
from palyra_egress.policy.values import (
    BASIC_USER_PATTERN,
    EXPECTED_BASIC_USER,
    EXPECTED_FORMAT,
    EXPECTED_PLACEHOLDER,
    FORMAT_PATTERN,
    PLACEHOLDER_PATTERN,
)
from palyra_egress.request import Scheme
from palyra_fleet.strict_yaml.document import Mapping, Node, Scalar

_FORMAT: Final = re.compile(FORMAT_PATTERN, re.ASCII)
_BASIC_USER: Final = re.compile(BASIC_USER_PATTERN, re.ASCII)
_PLACEHOLDER: Final = re.compile(PLACEHOLDER_PATTERN, re.ASCII)


def _read_header(fields: Fields) -> str | None:
    text, node = fields.text("header"), fields.node("header")
    if text is None or node is None:
        return None
    name = text.lower()
    problem = header_problem(name)
    if problem is None:
        return name
    fields.refuse(
        node.position,
        ProblemCode.BAD_VALUE,
        f"the header {text[:60]!r} {problem}",
        EXPECTED_HEADER,
        usual_header(name),
    )
    return None


def read_secret(fields: Fields) -> SecretRef | None:
    """The name under `secret`; None where it is missing or wrong."""
    node = fields.node("secret")
    if node is None:
        return None
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        message = "'secret' is no name of a secret"
        fields.refuse(node.position, ProblemCode.WRONG_TYPE, message, "a text")
        return None
    try:
        return SecretRef.parse(node.value)
    except SecretRefRefused as refused:
        fields.refuse(
            node.position,
            ProblemCode.BAD_VALUE,
            f"'secret': {refused.detail}",
            f"{refused.expected}; the secret itself never stands in a policy",
            refused.suggestion,
        )
        return None


def _read_matching(fields: Fields, name: str, pattern: re.Pattern[str], want: str) -> str | None:
    """A text that has the pattern's form; None where it is absent or wrong."""
    text, node = fields.text(name), fields.node(name)
    if text is None or node is None or pattern.fullmatch(text) is not None:
        return text
    fields.refuse(node.position, ProblemCode.BAD_VALUE, f"{name!r} is {describe(node)}", want)
    return None


def _read_credential(node: Node, rule: Fields) -> CredentialBinding | None:
    if not isinstance(node, Mapping):
        rule.refuse(
            node.position,
            ProblemCode.WRONG_TYPE,
            "a credential is no mapping",
            "a mapping with header and secret",
        )
        return None
    fields = Fields(node, CREDENTIAL, rule.problems)
    header, secret = _read_header(fields), read_secret(fields)
    form = _read_matching(fields, "format", _FORMAT, EXPECTED_FORMAT)
    basic_user = _read_matching(fields, "basic_user", _BASIC_USER, EXPECTED_BASIC_USER)
    placeholder = _read_matching(fields, "placeholder", _PLACEHOLDER, EXPECTED_PLACEHOLDER)
    if header is None or secret is None:
        return None
    prefix, _, suffix = (form or SECRET_SLOT).partition(SECRET_SLOT)
    return CredentialBinding(header, secret, prefix, suffix, basic_user, placeholder)


def _check_ways(fields: Fields, schemes: set[Scheme]) -> None:
    """A rule with credentials must be one whose requests go over TLS; that its tunnels are
    inspected is asked once the policy's default is known."""
    key = fields.mapping.entries["credentials"][0]
    if "http" in schemes:
        fields.refuse(
            key.position,
            ProblemCode.CREDENTIAL_OVER_HTTP,
            "a rule with credentials lets plain http pass, where anybody reads them",
            "`schemes: [https]`, or a rule of its own for http, without credentials",
        )


def read_credentials(fields: Fields, schemes: set[Scheme]) -> tuple[CredentialBinding, ...]:
    """The bindings of a rule, each header once; `schemes` are those of the rule."""
    found: dict[str, CredentialBinding] = {}
    for node in fields.items("credentials", "credentials") or ():
        binding = _read_credential(node, fields)
        if binding is None:
            continue
        if binding.header in found:
            fields.refuse(
                node.position,
                ProblemCode.BAD_VALUE,
                f"the header {binding.header!r} has a credential already",
                "each header once in a rule",
            )
        found.setdefault(binding.header, binding)
    if found:
        _check_ways(fields, schemes)
    return tuple(found[header] for header in sorted(found))
