"""Suffixes below which others can get a name: those of registries, and those of hosting providers.

A wildcard over one of these opens strangers' servers. Asked when a policy is read or linted, never
when a request is judged. Source: the Public Suffix List in the release that `publicsuffixlist`
ships, read once and from its own file, never from a network; its first section is the registries',
its second the providers'. `ADDITIONS` are dated additions that the list does not have.

Names are canonical (A-labels, lower case). A last label that no registry knows counts as a
registry's.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from publicsuffixlist import PublicSuffixList

ADDITIONS: Final = frozenset(
    {
        # buckets, each in anybody's hands
        "backblazeb2.com",
        "storage.googleapis.com",
        # tunnels to anybody's machine, names for any address
        "loca.lt",
        "nip.io",
        "serveo.net",
        "sslip.io",
    }
)
"""As of 2026-11-24, from the providers' own documents."""


class _Lists(NamedTuple):
    registries: PublicSuffixList
    everybody: PublicSuffixList
    parents: frozenset[str]


def _parents(names: Iterable[str]) -> frozenset[str]:
    """Every name that one of these lies below."""
    found: set[str] = set()
    for name in names:
        _, dot, parent = name.partition(".")
        while dot:
            found.add(parent)
            _, dot, parent = parent.partition(".")
    return frozenset(found)


@cache
def _lists() -> _Lists:
    text = files("publicsuffixlist").joinpath("public_suffix_list.dat").read_text("utf-8")
    rows = [line.split(" ")[0] for line in text.splitlines() if line and not line.startswith("//")]
    names = [row.lstrip("!").removeprefix("*.").encode("idna").decode() for row in rows]
    return _Lists(
        PublicSuffixList(text, only_icann=True),
        PublicSuffixList(text),
        _parents([*names, *ADDITIONS]),
    )


def is_registry_suffix(name: str) -> bool:
    """True if names directly below this one are sold or given out by a registry."""
    return bool(_lists().registries.is_public(name))


def is_shared_suffix(name: str) -> bool:
    """True if anybody can get a name somewhere below this one, from a registry or a provider."""
    lists = _lists()
    return name in ADDITIONS or name in lists.parents or bool(lists.everybody.is_public(name))
