"""PrincipalBook: the operators' names, roles and token digests, in one private file.

A token is 32 random bytes and is shown once, when it is made; kept is its SHA-256, which is enough
for a secret that cannot be guessed. In place of a token somebody may be bound to one subject of one
issuer, whose tokens `issuers` verifies; no subject is bound twice. The principal `operator` is not
in the file: it is whoever can read the token file that the fleet made at its first start, is always
an admin, and cannot be locked out. Every change replaces the file in one durable step before it
counts. A file that cannot be read, or that does not say exactly what this module writes, stops the
start: a principal that was revoked must not come back because of a damaged file.

Times are Unix milliseconds. Look-ups go by the digest of the whole token; the digest found is then
compared in constant time.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from palyra_fleet import private_files
from palyra_fleet.principals.roles import Roles
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.wire.models import DigestSha256, Name, UnixMs, WireModel
from palyra_fleet.wire.principal_models import Role, Subject

FIRST_PRINCIPAL: Final = "operator"
MAX_PRINCIPALS: Final = 1000
_TOKEN_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 1024 * 1024


class PrincipalFileError(Exception):
    """The file of principals is not usable; the text names it and what to do."""


class PrincipalRefused(Exception):
    """The change is not possible; the text says why."""


class PrincipalUnknown(PrincipalRefused):
    """Nobody of that name is known."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may ask the fleet for something."""

    name: str
    roles: Roles
    token_sha256: str | None = field(repr=False)
    created_at_unix_ms: int = 0
    expires_at_unix_ms: int | None = None
    subject: Subject | None = None

    def __post_init__(self) -> None:
        if (self.token_sha256 is None) == (self.subject is None):
            raise ValueError("a principal has a token or a subject")

    def holds_at(self, now_unix_ms: int) -> bool:
        return self.expires_at_unix_ms is None or now_unix_ms < self.expires_at_unix_ms


class _Line(WireModel):
    name: Name
    roles: tuple[Role, ...] = Field(min_length=1)
    token_sha256: DigestSha256 | None = None
    created_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs | None = None
    subject: Subject | None = None

    @model_validator(mode="after")
    def _is_known_by_one_thing(self) -> Self:
        if (self.token_sha256 is None) == (self.subject is None):
            raise ValueError("expected token_sha256 or subject")
        return self


class _File(WireModel):
    version: Literal[1]
    principals: tuple[_Line, ...] = Field(max_length=MAX_PRINCIPALS)


def token_sha256(token: str) -> str:
    """How a token is kept: lower-case hex SHA-256. Takes any header's text."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def new_token() -> str:
    """A token nobody has seen yet: 43 characters of base64url."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


class PrincipalBook:
    """Who is known now. One process owns the file."""

    def __init__(self, file: Path, first: Principal, others: Iterable[Principal]) -> None:
        self._file = file
        self._by_name: dict[str, Principal] = {}
        self._by_token: dict[str, Principal] = {}
        self._by_subject: dict[Subject, Principal] = {}
        for principal in (first, *others):
            if principal.name in self._by_name or self._is_taken(principal):
                raise PrincipalFileError(f"{file}: a name, a token or a subject stands twice")
            self._take(principal)

    @classmethod
    def open(cls, file: Path, first_token_sha256: str) -> Self:
        """Read the file; none yet means nobody but the first. Raises PrincipalFileError."""
        first = Principal(FIRST_PRINCIPAL, frozenset({Role.ADMIN}), first_token_sha256)
        return cls(file, first, _read(file))

    def __repr__(self) -> str:
        return f"PrincipalBook({len(self._by_name)} principals)"

    def by_token(self, token: str, now_unix_ms: int) -> Principal | None:
        """Whose token this is, if it still holds."""
        given = token_sha256(token)
        found = self._by_token.get(given)
        if found is None or not hmac.compare_digest(found.token_sha256 or "", given):
            return None
        return found if found.holds_at(now_unix_ms) else None

    def by_subject(self, subject: Subject, now_unix_ms: int) -> Principal | None:
        """Who is bound to a subject that was verified, if that still holds."""
        found = self._by_subject.get(subject)
        return found if found is not None and found.holds_at(now_unix_ms) else None

    def still_holds(self, principal: Principal, now_unix_ms: int) -> bool:
        """Whether somebody is known exactly as before: same roles, same token, not over."""
        return self._by_name.get(principal.name) == principal and principal.holds_at(now_unix_ms)

    def all(self) -> tuple[Principal, ...]:
        """Everybody, by name."""
        return tuple(self._by_name[name] for name in sorted(self._by_name))

    def check_new(self, principal: Principal) -> None:
        """Raise PrincipalRefused unless this one can be made known."""
        if principal.name in self._by_name:
            raise PrincipalRefused(f"there is a principal '{principal.name}' already")
        if self._is_taken(principal):
            raise PrincipalRefused("that token or subject is somebody's already")
        if len(self._by_name) > MAX_PRINCIPALS:
            raise PrincipalRefused(f"there are {MAX_PRINCIPALS} principals; revoke one first")

    def create(self, principal: Principal) -> None:
        """Make somebody known. Raises PrincipalRefused, or OSError with nothing changed."""
        self.check_new(principal)
        self._write([*self._others(), principal])
        self._take(principal)

    def revoke(self, name: str) -> Principal:
        """Forget somebody; token or subject are worth nothing from now on."""
        found = self._changeable(name)
        self._write([one for one in self._others() if one.name != name])
        self._drop(found)
        return found

    def replace_token(self, name: str, fresh_token_sha256: str) -> Principal:
        """Give somebody another token; the one before is worth nothing from now on."""
        found = self._changeable(name)
        if found.subject is not None:
            raise PrincipalRefused(f"the tokens of '{name}' come from {found.subject.issuer}")
        changed = replace(found, token_sha256=fresh_token_sha256)
        self._write([changed if one.name == name else one for one in self._others()])
        self._drop(found)
        self._take(changed)
        return changed

    def _changeable(self, name: str) -> Principal:
        if name == FIRST_PRINCIPAL:
            raise PrincipalRefused(
                f"'{FIRST_PRINCIPAL}' is whoever reads the fleet's token file; "
                "remove that file and start the fleet again for another token"
            )
        found = self._by_name.get(name)
        if found is None:
            raise PrincipalUnknown(f"there is no principal '{name}'")
        return found

    def _is_taken(self, principal: Principal) -> bool:
        return principal.token_sha256 in self._by_token or principal.subject in self._by_subject

    def _take(self, principal: Principal) -> None:
        self._by_name[principal.name] = principal
        if principal.token_sha256 is not None:
            self._by_token[principal.token_sha256] = principal
        if principal.subject is not None:
            self._by_subject[principal.subject] = principal

    def _drop(self, principal: Principal) -> None:
        del self._by_name[principal.name]
        if principal.token_sha256 is not None:
            del self._by_token[principal.token_sha256]
        if principal.subject is not None:
            del self._by_subject[principal.subject]

    def _others(self) -> list[Principal]:
        return [one for one in self.all() if one.name != FIRST_PRINCIPAL]

    def _write(self, others: list[Principal]) -> None:
        lines = tuple(
            _Line(
                name=one.name,
                roles=tuple(sorted(one.roles)),
                token_sha256=one.token_sha256,
                created_at_unix_ms=one.created_at_unix_ms,
                expires_at_unix_ms=one.expires_at_unix_ms,
                subject=one.subject,
            )
            for one in others
        )
        content = _File(version=1, principals=lines).model_dump_json(indent=1, exclude_none=True)
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_files.replace(self._file, content.encode() + b"\n")


def _read(file: Path) -> list[Principal]:
    if not file.is_symlink() and not file.exists():
        return []
    try:
        found = _File.model_validate_json(private_files.read_private(file, _MAX_FILE_BYTES))
    except KeyFileError as error:
        raise PrincipalFileError(str(error)) from error
    except ValidationError as error:
        raise PrincipalFileError(
            f"{file}: is not a file of principals as this program writes it; restore it from a "
            "backup, or remove it and create the principals again"
        ) from error
    return [
        Principal(
            line.name,
            frozenset(line.roles),
            line.token_sha256,
            line.created_at_unix_ms,
            line.expires_at_unix_ms,
            line.subject,
        )
        for line in found.principals
    ]
