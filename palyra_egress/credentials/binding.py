"""Which secret is added to which header, and how a secret is held. Pure.

A `CredentialBinding` says: requests that this rule allows carry this secret in this header, in this
form. It names the secret by a `SecretRef` (`vault:global/github_token`, `file:name`, `env:NAME`,
`kv:mount/path#field`) and never holds its value. A `SecretLookup` gives the value as a
`SecretValue`, which shows itself nowhere but where it is revealed on purpose.
Invariants: a reference has one spelling; a `SecretValue` is never printed, logged, pickled or
copied, and is compared in constant time; what could end a header line is no secret.
Sources: RFC 9110 section 5.5 (field values), RFC 7617 (Basic).
"""

import base64
import hmac
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn, Protocol, Self

from palyra_fleet.nearest_word import nearest

MIN_SECRET_CHARS: Final = 8
"""Shorter ones would be found by chance in what passes, and redacted or punished there."""
MAX_SECRET_CHARS: Final = 16 * 1024
SECRET_SLOT: Final = "{secret}"  # noqa: S105 where the secret stands in a format
MAX_REF_CHARS: Final = 512

_SEGMENT: Final = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_PATH: Final = f"{_SEGMENT}(?:/{_SEGMENT}){{0,7}}"
_VISIBLE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)


class SecretSource(StrEnum):
    """Where a secret lies."""

    VAULT = "vault"
    FILE = "file"
    ENV = "env"
    KV = "kv"


SECRET_NAMES: Final = {
    SecretSource.VAULT: _PATH,
    SecretSource.FILE: _PATH,
    SecretSource.ENV: "[A-Za-z_][A-Za-z0-9_]{0,127}",
    SecretSource.KV: f"{_SEGMENT}/{_PATH}#{_SEGMENT}",
}
"""What a name looks like in each source: one spelling, no `..`, no absolute path, no wildcard."""
SECRET_EXAMPLES: Final = {
    SecretSource.VAULT: "vault:global/github_token",
    SecretSource.FILE: "file:github_token",
    SecretSource.ENV: "env:GITHUB_TOKEN",
    SecretSource.KV: "kv:secret/team/github#token",
}
SECRET_REF_PATTERN: Final = "|".join(
    f"{source.value}:{names}" for source, names in SECRET_NAMES.items()
)
EXPECTED_REF: Final = "one of " + ", ".join(SECRET_EXAMPLES.values())
_NAMES: Final = {source: re.compile(names, re.ASCII) for source, names in SECRET_NAMES.items()}


class SecretRefRefused(ValueError):
    """The text names no secret. It never repeats the text: it may be the secret itself."""

    def __init__(self, detail: str, expected: str, suggestion: str | None = None) -> None:
        super().__init__(f"{detail}; expected {expected}")
        self.detail = detail
        self.expected = expected
        self.suggestion = suggestion


class SecretRef(NamedTuple):
    """The name of one secret, never its value; `str` gives it as it is written."""

    source: SecretSource
    name: str

    def __str__(self) -> str:
        return f"{self.source.value}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `source:name`. Raises SecretRefRefused."""
        if len(text) > MAX_REF_CHARS:
            raise SecretRefRefused("a reference is long", f"at most {MAX_REF_CHARS} characters")
        word, colon, name = text.partition(":")
        words = [source.value for source in SecretSource]
        if not colon:
            raise SecretRefRefused("this names no secret source", EXPECTED_REF)
        if word not in words:
            meant = nearest(word, words)
            suggestion = None if meant is None else SECRET_EXAMPLES[SecretSource(meant)]
            raise SecretRefRefused("there is no such secret source", EXPECTED_REF, suggestion)
        source = SecretSource(word)
        if _NAMES[source].fullmatch(name) is None:
            raise SecretRefRefused(
                f"this is no name of a secret in {word}",
                f"a name such as {SECRET_EXAMPLES[source]}",
            )
        return cls(source, name)


class SecretValue:
    """A secret. Only `reveal` gives it; everything else shows that there is one, and no more."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Whoever asks answers for where it goes."""
        return self._text

    def __repr__(self) -> str:
        return "SecretValue(redacted)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretValue):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode(errors="surrogatepass"), other._text.encode(errors="surrogatepass")
        )

    __hash__ = None  # type: ignore[assignment]  # a hash of a secret tells of the secret

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")


def secret_problem(text: str) -> str | None:
    """Why this text cannot be a secret in a header, without telling any of it; None if it can.

    Printable ASCII with no space at either end: nothing that ends a line or a header, and nothing
    that two programs read differently.
    """
    if len(text) < MIN_SECRET_CHARS:
        return f"it is shorter than {MIN_SECRET_CHARS} characters"
    if len(text) > MAX_SECRET_CHARS:
        return f"it is longer than {MAX_SECRET_CHARS} characters"
    if _VISIBLE.fullmatch(text) is None:
        return "it holds a line end, a control character, non-ASCII, or a space at an end"
    return None


class CredentialBinding(NamedTuple):
    """One secret in one header, for the requests that one rule allows.

    The header's value is `prefix` + secret + `suffix`; with `basic_user` that is the password of
    the scheme Basic for that user. `placeholder` is what the worker sends where the secret is to
    stand; without one the header is set whatever the worker sent. `header` is in lower case.
    """

    header: str
    secret: SecretRef
    prefix: str = ""
    suffix: str = ""
    basic_user: str | None = None
    placeholder: str | None = None
    rule_id: str = ""

    def value_of(self, secret: str) -> str:
        """The header's value for a secret, or for a placeholder that stands for it."""
        text = f"{self.prefix}{secret}{self.suffix}"
        if self.basic_user is None:
            return text
        pair = f"{self.basic_user}:{text}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    @property
    def has_form(self) -> bool:
        """Whether the value is more than the secret alone."""
        return self.basic_user is not None or bool(self.prefix or self.suffix)

    def __str__(self) -> str:
        return f"{self.header} from {self.secret}"


class SecretLookup(Protocol):
    """The secrets this proxy holds right now. Every method answers at once, from memory."""

    @property
    def allowed(self) -> frozenset[SecretSource]:
        """The sources that the operator lets policies name; a binding of another is refused with
        `credential_source_not_allowed`, whatever it holds."""
        ...

    @property
    def version(self) -> int:
        """A number that is never the same again once any secret came, went or changed."""
        ...

    def get(self, ref: SecretRef) -> SecretValue | None:
        """The secret, or None: missing, unreadable or unusable now. None refuses the request."""
        ...

    def values(self) -> Iterable[SecretValue]:
        """Every secret that is held, each once, for whoever looks for leaks."""
        ...


class NoSecrets:
    """The lookup of an installation without secrets: every binding is unavailable."""

    allowed: Final = frozenset(SecretSource)
    version: Final = 0

    def get(self, _ref: SecretRef) -> SecretValue | None:
        return None

    def values(self) -> Iterable[SecretValue]:
        return ()
