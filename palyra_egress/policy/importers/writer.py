"""Writes a draft as a policy file that our own strict loader reads.

Input: a finished `Draft`. Output: YAML text with a head of comments: what was changed, left out and
not imported. Strangers' text reaches the file only as a quoted scalar or as printable ASCII in a
comment, so that no line of it can become a line of the policy.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from palyra_egress.destination.hostpattern import parse_pattern
from palyra_egress.policy.fields import MAX_TEXT
from palyra_egress.policy.importers.draft import Draft, DraftDeny, DraftRule
from palyra_egress.policy.schema import (
    DEFAULT_METHODS,
    DEFAULT_SCHEMES,
    LANGUAGE_VERSION,
    SERVICE_PORTS,
    Acknowledgement,
)

_PLAIN: Final = re.compile(
    r"\.?[A-Za-z/][A-Za-z0-9._/*-]*|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?", re.ASCII
)
_MEANS_SOMETHING: Final = frozenset(
    {"y", "n", "yes", "no", "on", "off", "true", "false", "null", ".inf", ".nan"}
)
_UNPRINTABLE: Final = re.compile(r"[^ -~…]+")
_WIDTH: Final = 100


def _in_quotes(letter: str) -> str:
    """One character of a double-quoted scalar; half a surrogate pair is no character."""
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return "\ufffd" if "\ud800" <= letter <= "\udfff" else f"\\U{ord(letter):08x}"


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) is not None and text.lower() not in _MEANS_SOMETHING:
        return text
    return f'"{"".join(map(_in_quotes, text))}"'


def _prose(text: str) -> str:
    """A stranger's sentence as the loader takes one: of bounded length, with every sign that
    cannot be shown replaced."""
    shown = (one if one.isprintable() or one == "\n" else "\ufffd" for one in text[:MAX_TEXT])
    return _scalar("".join(shown))


def _listing(key: str, values: Iterable[str | int]) -> list[str]:
    """`key: [a, b]` on one line, or one value a line where that is too long."""
    texts = [_scalar(value) if isinstance(value, str) else str(value) for value in values]
    line = f"    {key}: [{', '.join(texts)}]"
    if len(line) <= _WIDTH:
        return [line]
    return [f"    {key}:", *(f"      - {text}" for text in texts)]


def _comment(word: str, texts: Sequence[str]) -> list[str]:
    return [f"# {word}: {_UNPRINTABLE.sub(' ', text)}" for text in texts]


def _acknowledged(rule: DraftRule) -> list[Acknowledgement]:
    """What the rule does that our language wants said twice."""
    patterns = [parse_pattern(host) for host in rule.hosts]
    found = {
        Acknowledgement.WIDE_HOST: any(pattern.is_wide for pattern in patterns),
        Acknowledgement.SINGLE_LABEL: any(pattern.is_single_label for pattern in patterns),
        Acknowledgement.SERVICE_PORT: any(port in SERVICE_PORTS for port in rule.ports or ()),
    }
    return [word for word, applies in found.items() if applies]


def _rule_lines(rule: DraftRule) -> list[str]:
    lines = [f"  - id: {_scalar(rule.rule_id)}", *_listing("hosts", rule.hosts)]
    if rule.schemes != DEFAULT_SCHEMES:
        lines += _listing("schemes", rule.schemes)
    if rule.ports is not None:
        lines += _listing("ports", rule.ports)
    if rule.methods != DEFAULT_METHODS:
        lines += _listing("methods", rule.methods)
    if rule.paths is not None:
        lines += _listing("paths", rule.paths)
    if rule.private:
        lines += _listing("private", rule.private)
    if rule.credentials:
        lines.append("    credentials:")
        for one in rule.credentials:
            parts = (f"header: {one.header}", f"secret: {_scalar(one.secret)}")
            lines.append(f"      - {{{', '.join(parts)}, format: {_scalar(one.form)}}}")
    acknowledged = _acknowledged(rule)
    if acknowledged:
        words = " and ".join(word.value for word in acknowledged)
        lines.append(f"    # the original says so too, but think again: {words}")
        lines += _listing("acknowledge", [word.value for word in acknowledged])
    if rule.owner:
        lines.append(f"    owner: {_prose(rule.owner)}")
    return lines


def _deny_lines(rule: DraftDeny) -> list[str]:
    lines = [f"  - id: {_scalar(rule.rule_id)}", *_listing("hosts", rule.hosts)]
    if rule.reason:
        lines.append(f"    reason: {_prose(rule.reason)}")
    return lines


def write_policy(draft: Draft) -> str:
    """The whole file, ending in a newline."""
    lines = [
        f"# Imported from {draft.source}. Read it, and add tests, before you put it in force.",
        *_comment("changed", draft.changed),
        *_comment("left out", draft.left_out),
        *_comment("not imported", draft.dropped),
        f"version: {LANGUAGE_VERSION}",
        f"name: {draft.source}-import",
    ]
    if draft.observes:
        lines.append("mode: observe")
    lines.append("")
    lines.append("rules:" if draft.rules else "rules: []")
    for rule in draft.rules:
        lines += _rule_lines(rule)
    if draft.deny:
        lines += ["", "deny:"]
        for deny in draft.deny:
            lines += _deny_lines(deny)
    lines += ["", "profiles:" if draft.profiles else "profiles: {}"]
    for profile, rule_ids in draft.profiles.items():
        lines.append(f"  {_scalar(profile)}: [{', '.join(map(_scalar, rule_ids))}]")
    return "\n".join(lines) + "\n"
