"""What is put into the headers of one allowed request. Pure; values come from a `SecretLookup`.

Input: the bindings of the deciding rule, the lookup, and what the worker sent under a header's
name. Output: one `Injected` for each header that is set, or a `BindingRefused` with the reason and
the binding it is about. Without a placeholder the header is set whatever the worker sent. With one,
the worker's header says where the secret goes: in a binding with a form it must be exactly that
form, elsewhere the placeholder must stand in it once and by itself (also inside Basic). A request
without the header goes out without it: whoever sends nothing asks for nothing.
Invariants: a secret that is missing or unusable refuses, and nothing is sent without it; a header
that has a value of the worker's own and no placeholder refuses; all headers or none.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from palyra_egress.credentials.binding import (
    CredentialBinding,
    SecretLookup,
    SecretValue,
    secret_problem,
)
from palyra_egress.reasons import Reason

type OfferedHeader = Callable[[str], Sequence[str]]
"""The values that the worker sent under a header's name, one for each line."""

_BASIC: Final = re.compile(r"(?i:basic) +([A-Za-z0-9+/]{1,8192}={0,2})", re.ASCII)
_MAY_STAND_BESIDE: Final = frozenset(" \t=:;,\"'")


class Injected(NamedTuple):
    """One header as it will leave: `value` holds the secret in its form."""

    binding: CredentialBinding
    secret: SecretValue
    value: SecretValue


class BindingRefused(NamedTuple):
    """Why a binding cannot be met, and which."""

    reason: Reason
    binding: CredentialBinding


def nothing_offered(_name: str) -> Sequence[str]:
    """For requests whose headers are not known."""
    return ()


def _swap_once(text: str, placeholder: str, secret: str) -> str | None:
    """The text with the secret in place of a placeholder that stands by itself, once."""
    before, found, after = text.partition(placeholder)
    if not found or placeholder in after:
        return None
    beside = {before[-1:], after[:1]} - {""}
    return f"{before}{secret}{after}" if beside <= _MAY_STAND_BESIDE else None


def _swap_in_basic(text: str, placeholder: str, secret: str) -> str | None:
    """The same inside the user name and password of HTTP Basic."""
    match = _BASIC.fullmatch(text)
    if match is None:
        return None
    try:
        pair = base64.b64decode(match[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    swapped = _swap_once(pair, placeholder, secret)
    if swapped is None:
        return None
    return f"Basic {base64.b64encode(swapped.encode()).decode()}"


def _value(binding: CredentialBinding, offered: str, secret: str) -> str | None:
    """The header's value for what the worker sent, or None if that asks for no secret."""
    if not offered.isascii():
        return None
    placeholder = binding.placeholder or ""
    if binding.has_form:
        asks = offered == binding.value_of(placeholder)
        return binding.value_of(secret) if asks else None
    return _swap_once(offered, placeholder, secret) or _swap_in_basic(offered, placeholder, secret)


def _inject(
    binding: CredentialBinding, lookup: SecretLookup, offered: OfferedHeader
) -> Injected | Reason | None:
    """The header, why it is refused, or None where the worker asks for none."""
    if binding.secret.source not in lookup.allowed:
        return Reason.CREDENTIAL_SOURCE_NOT_ALLOWED
    secret = lookup.get(binding.secret)
    if secret is None or secret_problem(secret.reveal()) is not None:
        return Reason.CREDENTIAL_UNAVAILABLE
    if binding.placeholder is None:
        return Injected(binding, secret, SecretValue(binding.value_of(secret.reveal())))
    lines = offered(binding.header)
    if not lines:
        return None
    value = _value(binding, lines[0], secret.reveal()) if len(lines) == 1 else None
    if value is None:
        return Reason.CREDENTIAL_HEADER_NOT_ALLOWED
    return Injected(binding, secret, SecretValue(value))


def inject(
    bindings: Sequence[CredentialBinding], lookup: SecretLookup, offered: OfferedHeader
) -> tuple[Injected, ...] | BindingRefused:
    """Every header that is set, or the first binding that refuses the request."""
    found: list[Injected] = []
    for binding in bindings:
        outcome = _inject(binding, lookup, offered)
        if isinstance(outcome, Reason):
            return BindingRefused(outcome, binding)
        if outcome is not None:
            found.append(outcome)
    return tuple(found)
