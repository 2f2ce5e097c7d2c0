"""agent-vault's `auth` of a service as credentials of our rule, where the two mean the same.

`bearer`, `api-key` and `custom` (each header a template with one secret) are carried: the secret
keeps its name, in the vault's scope. `basic` is not: its user name is a secret there and stands in
the policy here. What cannot be carried is dropped, and then the host is allowed with nothing added.
Source: Infisical/agent-vault, internal/broker, August 2026.
"""

import re
from collections.abc import Mapping
from typing import Final

from palyra_egress.credentials.binding import SECRET_SLOT, SecretRef, SecretRefRefused
from palyra_egress.credentials.header_names import header_problem
from palyra_egress.policy.importers.draft import (
    Draft,
    DraftCredential,
    Value,
    identifier,
    mapping_of,
    quoted,
    text_of,
)
from palyra_egress.policy.values import FORMAT_PATTERN

DEFAULT_SCOPE: Final = "global"
_PASSTHROUGH: Final = "passthrough"
_KEY: Final = re.compile("[A-Z][A-Z0-9_]*", re.ASCII)
_SLOT: Final = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}", re.ASCII)
_FORMAT: Final = re.compile(FORMAT_PATTERN, re.ASCII)


class _NotCarried(ValueError):
    """Why a credential cannot be said here; the text is ours."""


def _templates(auth: Mapping[str, Value], kind: str, where: str) -> dict[str, str]:
    """Header → its value, with `{{ KEY }}` where the secret stands."""
    match kind:
        case "bearer":
            return {"Authorization": f"Bearer {{{{ {text_of(auth.get('token'), where)} }}}}"}
        case "api-key":
            header = text_of(auth.get("header") or "Authorization", where)
            prefix = text_of(auth.get("prefix") or "", where)
            return {header: f"{prefix}{{{{ {text_of(auth.get('key'), where)} }}}}"}
        case "custom":
            headers = mapping_of(auth.get("headers"), f"{where}.headers")
            return {name: text_of(value, where) for name, value in headers.items()}
        case "basic":
            raise _NotCarried("its user name is a secret there; here it is `basic_user`")
        case _:
            raise _NotCarried("a kind that is not known")


def _credential(header: str, template: str, scope: str) -> DraftCredential:
    name = header.lower()
    if header_problem(name) is not None:
        raise _NotCarried(f"the header {quoted(header)} may not carry a credential here")
    keys = _SLOT.findall(template)
    if len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        raise _NotCarried(f"the header {quoted(header)} is not made of one secret")
    form = _SLOT.sub(SECRET_SLOT, template)
    if _FORMAT.fullmatch(form) is None:
        raise _NotCarried(f"the form of the header {quoted(header)} cannot be said")
    try:
        ref = SecretRef.parse(f"vault:{scope}/{keys[0]}")
    except SecretRefRefused as error:
        raise _NotCarried("the secret's name cannot be said") from error
    return DraftCredential(name, str(ref), form)


def credentials_of(
    draft: Draft, service: Mapping[str, Value], vault: Value, where: str
) -> tuple[DraftCredential, ...]:
    """The service's credentials, all or none; notes what is not carried, or where secrets go."""
    auth = mapping_of(service.get("auth", {}), f"{where}.auth")
    kind = text_of(auth.get("type", _PASSTHROUGH), f"{where}.auth.type")
    if kind == _PASSTHROUGH:
        return ()
    scope = identifier(vault) if isinstance(vault, str) and vault else DEFAULT_SCOPE
    place = f"{where}.auth"
    try:
        found = tuple(
            _credential(header, template, scope)
            for header, template in sorted(_templates(auth, kind, place).items())
        )
        if len({one.header for one in found}) < len(found):
            raise _NotCarried("a header has two credentials")
    except _NotCarried as error:
        draft.drop(
            place,
            f"the credential ({quoted(kind)}): {error}; the host is allowed, nothing is injected",
        )
        return ()
    for one in found:
        draft.change(f"{place}: put the secret where {one.secret} names it; only https gets it")
    return found
