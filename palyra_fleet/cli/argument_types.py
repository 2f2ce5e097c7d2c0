"""What arguments must look like, for argparse: a value, or an error that says what was expected."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from palyra_fleet.wire import labels
from palyra_fleet.wire.models import Base64Key, DigestSha256, Name, Principal, ShortText, Ulid
from palyra_fleet.wire.principal_models import IssuerUrl, SubjectText

_MAX_SECONDS: Final = 7 * 24 * 3600


def matching(adapter: TypeAdapter[str], expected: str) -> Callable[[str], str]:

    def check(text: str) -> str:
        try:
            return adapter.validate_python(text)
        except ValidationError:
            raise argparse.ArgumentTypeError(f"expected {expected}") from None

    return check


def checked[Read](check: Callable[[str], Read]) -> Callable[[str], Read]:
    """What `check` makes of a text; its ValueError says what was expected."""

    def read(text: str) -> Read:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def between(least: int, most: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:12]) <= most):
            raise argparse.ArgumentTypeError(f"expected a number from {least} to {most}")
        return int(text)

    return check


def add_ca_file(group: argparse._ArgumentGroup, flag: str) -> None:
    """A file of CAs that a receiver's certificate is verified with."""
    trusted = "the CAs to trust (default: the public ones)"
    group.add_argument(flag, type=Path, metavar="PEM", help=trusted)


def host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port[:6]) < 2**16):
        raise argparse.ArgumentTypeError("expected HOST:PORT")
    return host.strip("[]"), int(port)


def wanted_label(text: str) -> str:
    """KEY or KEY=VALUE, as it is asked for."""
    checked(labels.wanted_label)(text)
    return text


def label_change(text: str) -> labels.WantedLabel:
    """KEY=VALUE gives a label, KEY- takes it (the value is None)."""
    try:
        key, value = labels.wanted_label(text.removesuffix("-") if "=" not in text else text)
    except ValueError:
        key, value = "", None
    if not key or (value is None and not text.endswith("-")):
        raise argparse.ArgumentTypeError("expected KEY=VALUE, or KEY- to take it")
    return key, value


def label_given(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    if "=" not in text:
        raise argparse.ArgumentTypeError("expected KEY=VALUE")
    key, value = label_change(text)
    return key, value or ""


ulid = matching(TypeAdapter(Ulid), "an id (26 characters)")
name = matching(TypeAdapter(Name), "a lower-case name")
principal = matching(TypeAdapter(Principal), "letters, digits and ._@:-")
digest = matching(TypeAdapter(DigestSha256), "64 lower-case hex digits")
public_key = matching(TypeAdapter(Base64Key), "base64 of 32 bytes")
issuer = matching(TypeAdapter(IssuerUrl), "https://HOST[/PATH]")
subject = matching(TypeAdapter(SubjectText), "1 to 255 printable ASCII characters")
reason = matching(TypeAdapter(ShortText), "1 to 500 characters")
seconds = between(1, _MAX_SECONDS)
rows = between(1, 1000)
