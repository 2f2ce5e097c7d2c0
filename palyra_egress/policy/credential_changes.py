"""Which requests carry other credentials under a new policy than under the old one.

Input: two policies' models. Output: a `Minor` for each header whose binding is another, for each
pair of rules that decide the same requests before and after; and one where rules with different
credentials meet and any of them changed, because which of them decides depends on more than the
pairs show (time, addresses, patterns that overlap in part). Every such change wants a look: a
credential that comes lets a worker act as somebody, and where one goes, the worker's own value for
that header passes. Policies name secrets and never hold them, so nothing here can tell one.
"""

from collections.abc import Iterator

from palyra_egress.credentials.binding import SECRET_SLOT, CredentialBinding
from palyra_egress.policy.grants import Grant
from palyra_egress.policy.meeting_rules import uncertain
from palyra_egress.policy.minor_changes import Minor, decided_before_and_after
from palyra_egress.policy.schema import PolicySpec


def describe_binding(binding: CredentialBinding) -> str:
    """Header, secret's name and form, never a value."""
    form = f"{binding.prefix}{SECRET_SLOT}{binding.suffix}"
    form = "" if form == SECRET_SLOT else f" as {form!r}"
    form += "" if binding.basic_user is None else f", Basic for {binding.basic_user}"
    place = "" if binding.placeholder is None else f", in place of {binding.placeholder}"
    return f"{binding}{form}{place}"


def _told(header: str, old: CredentialBinding | None, new: CredentialBinding | None) -> str:
    words = [describe_binding(one) for one in (old, new) if one is not None]
    if new is None:
        return f"no longer adds {words[0]}; the worker's own {header} passes"
    return f"now adds {words[0]}" if old is None else " → ".join(words)


def _between(before: Grant, after: Grant) -> Iterator[Minor]:
    rule = after.rule
    old = {one.header: one for one in before.rule.credentials}
    new = {one.header: one for one in rule.credentials}
    for header in sorted({*old, *new}):
        if old.get(header) == new.get(header):
            continue
        what = f"{rule.rule_id}: {_told(header, old.get(header), new.get(header))}"
        if before.rule.rule_id != rule.rule_id:
            what += f" (was decided by {before.rule.rule_id})"
        yield Minor(1, what, rule.position, rule.rule_id, rule.file)


def _uncertain(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    """Places where rules with different credentials meet, and not all is as it was."""
    for profile, rule in uncertain(old, new, lambda rule: rule.credentials):
        named = ", ".join(str(one) for one in rule.credentials)
        what = f"{profile}: which requests carry {named} may be others now"
        yield Minor(1, what, rule.position, rule.rule_id, rule.file)


def credential_changes(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    """Each change once, in the order of the rules."""
    found = [
        change for was, now in decided_before_and_after(old, new) for change in _between(was, now)
    ]
    told = {change.subject for change in found}
    found += [change for change in _uncertain(old, new) if change.subject not in told]
    yield from dict.fromkeys(found)
