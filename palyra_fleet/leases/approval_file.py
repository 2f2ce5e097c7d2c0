"""The file of approval rules that security teams edit: read strictly, every mistake told at once.

Input: bytes of YAML. Output: `ApprovalRules` and the cases that the file holds about itself, or an
`ApprovalFileError` with one `file:line:col: code: what is wrong` for each mistake. Unknown keys are
told with the one that was probably meant. The file's own cases are run, and one that fails refuses
the file. An empty list of rules approves nothing. Times in the file are RFC 3339 with an offset.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from palyra_fleet.leases.approval_rules import (
    HERE,
    ApprovalRule,
    ApprovalRules,
    Asker,
    RunAsked,
)
from palyra_fleet.model_keys import keys_at
from palyra_fleet.nearest_word import did_you_mean, nearest
from palyra_fleet.strict_yaml.document import Mistake, Position
from palyra_fleet.strict_yaml.positioned import Path, Positioned, read_positioned
from palyra_fleet.wire.ids import ULID_PATTERN
from palyra_fleet.wire.models import DigestSha256, Name, Principal, ShortText

MAX_BYTES: Final = 256 * 1024
MAX_LEASE_MS: Final = 7 * 24 * 3_600_000
_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PATTERN: Final = r"^[A-Za-z0-9._@:-]*\*?[A-Za-z0-9._@:-]*$"
TITLE: Final = "Palyra approval rules, version 1"
NOBODY: Final = "none"
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:\d\d)", re.ASCII
)


class ApprovalFileError(Exception):
    """The rules cannot be used; the text has a line for each mistake."""


def _moment(text: str) -> str:
    if unix_ms_of(text) is None:
        raise ValueError("expected a time such as 2027-03-31T18:00:00Z")
    return text


def _length(text: str) -> str:
    if not 1_000 <= ms_of(text) <= MAX_LEASE_MS:
        raise ValueError("expected between 1s and 7d")
    return text


def _no_stars_first(text: str) -> str:
    if text.startswith("*"):
        raise ValueError("expected something before the '*', or it would be anybody")
    return text


type _Many[T] = Annotated[tuple[T, ...], Field(min_length=1, max_length=1_000, strict=False)]
_Pattern = Annotated[str, StringConstraints(pattern=_PATTERN, min_length=1, max_length=128)]
_Whose = Annotated[_Pattern, AfterValidator(_no_stars_first)]
_Moment = Annotated[str, AfterValidator(_moment)]
_LengthText = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,6}[smhd]$")]
_Length = Annotated[_LengthText, AfterValidator(_length)]
_Machine = Annotated[str, StringConstraints(pattern=f"^(?:{HERE}|{ULID_PATTERN})$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Who(_Table):
    """Who may ask. All that stand here must fit."""

    launchers: _Many[Name] | None = Field(None, description="enrolled launchers, by name")
    identities: _Many[_Whose] | None = Field(
        None, description="what the attestor calls the worker; one * stands for any signs"
    )
    machines: _Many[_Machine] | None = Field(None, description="ids of paired devices, or here")


class _Limits(_Table):
    """How much."""

    lease: _Length = Field(description="how long an approval holds, and the run at most: 15m, 2h")
    uses_per_hour: Annotated[int, Field(ge=1, le=10_000)]
    at_once: Annotated[int, Field(ge=1, le=10_000)]


class _Rule(_Table):
    """One rule."""

    id: Name
    owner: ShortText
    reason: ShortText
    until: _Moment = Field(description="RFC 3339; from then on the rule approves nothing")
    who: _Who
    tools: _Many[Name]
    runs: _Many[_Pattern] = Field(description="run ids; one * stands for any signs")
    profiles: _Many[Name] = Field(description="egress profiles it may give")
    artifact_digests: _Many[DigestSha256] | None = Field(
        None, description="only for programs that somebody else than the worker measured as these"
    )
    read_only: bool = Field(
        False, description="only runs in a workspace that they cannot write to (isolated workers)"
    )
    limits: _Limits


class _Case(_Table):
    """A case that must come out as it says, or the file is refused."""

    run: Principal
    tool: Name
    profile: Name
    identity: Principal
    launcher: Name | None = None
    machine: _Machine = HERE
    artifact_digest: DigestSha256 | None = None
    read_only: bool = False
    at: _Moment | None = Field(None, description="when; without it before any 'until'")
    expect: Name = Field(description="the id of the rule that approves, or none")


class _File(_Table):
    """Approval rules, version 1."""

    version: Literal[1]
    rules: Annotated[tuple[_Rule, ...], Field(max_length=1_000, strict=False)]
    tests: Annotated[tuple[_Case, ...], Field(max_length=1_000, strict=False)] = ()


@dataclass(frozen=True, slots=True)
class ReadApprovals:
    """What a good file says."""

    rules: ApprovalRules
    cases: int


@dataclass(frozen=True, slots=True)
class _Wrong:
    """One line of an `ApprovalFileError`."""

    place: Position
    code: str
    said: str

    @classmethod
    def of(cls, mistake: Mistake) -> Self:
        expected = "" if mistake.expected is None else f"; expected {mistake.expected}"
        return cls(mistake.position, mistake.fault.value, f"{mistake.message}{expected}")


def schema() -> dict[str, object]:
    """JSON Schema (2020-12) of the file, for editors."""
    made = _File.model_json_schema()
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": TITLE}
    return {**made, **named}


def read_approvals(source: bytes, name: str) -> ReadApprovals:
    """Raises ApprovalFileError."""
    found = read_positioned(source, max_bytes=MAX_BYTES, what="approval rules")
    if found.mistakes:
        raise _refused(name, map(_Wrong.of, found.mistakes))
    try:
        said = _File.model_validate(found.value)
    except ValidationError as error:
        raise _refused(name, _mistakes(error, found)) from None
    rules = ApprovalRules.of(map(_rule, said.rules), hashlib.sha256(source).hexdigest())
    mistakes = [*_doubts(said, found), *_failed(said, rules, found)]
    if mistakes:
        raise _refused(name, mistakes)
    return ReadApprovals(rules, len(said.tests))


def ms_of(length: str) -> int:
    return int(length[:-1]) * _UNITS_MS[length[-1]]


def unix_ms_of(text: str) -> int | None:
    """RFC 3339 with an offset as Unix ms; None if it is not one."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _rule(said: _Rule) -> ApprovalRule:
    return ApprovalRule(
        rule_id=said.id,
        owner=said.owner,
        reason=said.reason,
        until_unix_ms=unix_ms_of(said.until) or 0,
        tools=said.tools,
        runs=said.runs,
        profiles=said.profiles,
        lease_ms=ms_of(said.limits.lease),
        uses_per_hour=said.limits.uses_per_hour,
        at_once=said.limits.at_once,
        launchers=said.who.launchers or (),
        identities=said.who.identities or (),
        machines=said.who.machines or (),
        artifact_digests=said.artifact_digests or (),
        read_only=said.read_only,
    )


def _doubts(said: _File, found: Positioned) -> Iterable[_Wrong]:
    """What no single value shows."""
    seen: set[str] = set()
    for number, rule in enumerate(said.rules):
        path: Path = ("rules", number)
        if rule.id == NOBODY:
            yield _at(found, (*path, "id"), "bad_value", f"'{NOBODY}' is no rule's name")
        if rule.id in seen:
            yield _at(found, (*path, "id"), "duplicate_id", f"a rule '{rule.id}' stands above")
        seen.add(rule.id)
        if not (rule.who.launchers or rule.who.identities or rule.who.machines):
            text = "nobody may ask; expected launchers, identities or machines"
            yield _at(found, (*path, "who"), "missing_key", text)


def _failed(said: _File, rules: ApprovalRules, found: Positioned) -> Iterable[_Wrong]:
    for number, case in enumerate(said.tests):
        asker = Asker(case.identity, case.machine, case.launcher, case.artifact_digest)
        asked = RunAsked(case.run, case.tool, case.profile, case.read_only)
        at = 0 if case.at is None else unix_ms_of(case.at) or 0
        approved = next((rule.rule_id for rule in rules.fitting(asker, asked, at)), NOBODY)
        if approved != case.expect:
            text = f"this is approved by {approved!r}; expected {case.expect!r}"
            yield _at(found, ("tests", number, "expect"), "test_failed", text)


def _at(found: Positioned, path: Path, code: str, said: str) -> _Wrong:
    return _Wrong(found.near(path), code, said)


def _mistakes(refusal: ValidationError, found: Positioned) -> list[_Wrong]:
    told = refusal.errors(include_url=False)
    unknown = {error["loc"] for error in told if error["type"] == "extra_forbidden"}
    meant: set[Path] = set()
    mistakes = []
    for path in unknown:
        known = keys_at(_File, path[:-1])
        close = nearest(str(path[-1]), known)
        meant |= set() if close is None else {(*path[:-1], close)}
        hint = did_you_mean(str(path[-1]), known)
        said = f"there is no key {str(path[-1])[:60]!r}; expected one of {', '.join(known)}{hint}"
        mistakes.append(_Wrong(found.keys.get(path, found.near(path)), "unknown_key", said))
    for error in told:
        path = error["loc"]
        if error["type"] == "missing" and path not in meant:
            mistakes.append(_at(found, path, "missing_key", f"the key {path[-1]!r} is missing"))
        elif error["type"] not in {"missing", "extra_forbidden"}:
            mistakes.append(
                _at(
                    found,
                    path,
                    "bad_value",
                    f"{_named(path)}: {_words(error['type'], error['msg'])}",
                )
            )
    return mistakes


_WORDS: Final = {
    "too_short": "expected at least one",
    "string_type": "expected a text",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "model_type": "expected a mapping",
    "string_too_short": "expected a text that is not empty",
}


def _words(kind: str, said: str) -> str:
    return _WORDS.get(kind) or said.removeprefix("Value error, ")


def _named(path: Path) -> str:
    return ".".join(str(part) for part in path) or "the file"


def _refused(name: str, mistakes: Iterable[_Wrong]) -> ApprovalFileError:
    lines = [
        f"{name}:{one.place.line}:{one.place.column}: {one.code}: {one.said}"
        for one in sorted(mistakes, key=lambda one: one.place)
    ]
    return ApprovalFileError("\n".join(lines[:100]))
