"""One authenticated call on its way to a handler: bounded body, checked query, typed parts.

`read_body` takes only `application/json` without content coding, at most 64 KiB, in time. A
handler sees a `Call` and never the raw headers. Everything wrong is an ApiRefusal without values.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from palyra_fleet.api.callers import Identity
from palyra_fleet.api.devices import DeviceGate
from palyra_fleet.api.long_calls import LongCalls
from palyra_fleet.api.paging import ListOf, read_cursor
from palyra_fleet.api.problems import ApiReason, ApiRefusal, places_that_are_wrong
from palyra_fleet.identity.messages import PairedDevice
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.principals.desk import PrincipalDesk
from palyra_fleet.principals.roles import permits
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.wire.ids import NAME_PATTERN
from palyra_fleet.wire.labels import MAX_LABELS, WantedLabel, wanted_label
from palyra_fleet.wire.models import Ulid
from palyra_fleet.wire.principal_models import Role

MAX_BODY_BYTES: Final = 64 * 1024
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_CONTENT_TYPE: Final = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)
_ULID: Final = TypeAdapter(Ulid)
FLAGS: Final = ("true", "false")
REPEATED: Final = frozenset({"label"})
"""Parameters that may stand in a query several times."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler gets. `write_timeout_ms` bounds each write of a streamed answer; `still`
    raises ApiRefusal once the caller may no longer do what it asked for; `log_readers` are the
    places of calls that follow the log. `device` is the paired machine that calls, None for this
    one."""

    service: FleetService
    operations: NodeOperations | None
    principals: PrincipalDesk
    identity: Identity
    request: web.Request
    query: Mapping[str, str]
    body: bytes
    write_timeout_ms: int
    still: Callable[[], None]
    log_readers: LongCalls
    device: PairedDevice | None = None
    devices: DeviceGate | None = None

    def may_still(self) -> bool:
        """Whether `still` lets it."""
        try:
            self.still()
        except ApiRefusal:
            return False
        return True

    def held(self) -> AbstractContextManager[None]:
        """A place among those who follow the log. Raises ApiRefusal where there is none."""
        is_admin = permits(self.identity.roles, Role.ADMIN)
        return self.log_readers.held(self.identity, let_first=is_admin)

    @property
    def device_id(self) -> str | None:
        return None if self.device is None else self.device.device_id

    @property
    def nodes(self) -> NodeOperations:
        """What can be done about nodes; a refusal where this fleet serves none."""
        if self.operations is None:
            raise ApiRefusal(ApiReason.NODES_OFF)
        return self.operations

    def part(self, name: str) -> str:
        """A variable part of the path; its form was checked by the route."""
        return self.request.match_info[name]

    def header(self, name: str) -> str | None:
        """A header that the row names, if it is there. Raises ApiRefusal if there are several."""
        values = self.request.headers.getall(name, [])
        if len(values) > 1:
            raise ApiRefusal(ApiReason.REQUEST_INVALID, f"{name}: expected once")
        return values[0] if values else None

    def read[Model: BaseModel](self, model: type[Model]) -> Model:
        return parse_body(model, self.body)

    def cursor(self, list_of: ListOf) -> str | None:
        """What the page that is asked for begins after; None for the first."""
        return read_cursor(list_of, self.query.get("cursor"))

    def number(self, name: str, *, default: int, least: int, most: int) -> int:
        """A whole number of the query, inside its bounds."""
        return read_number(self.query, name, default=default, least=least, most=most)

    def one_of[Choice: StrEnum](self, name: str, choices: type[Choice], default: Choice) -> Choice:
        """One word of those that are known."""
        return read_choice(self.query, name, choices, default)

    def maybe[Choice: StrEnum](self, name: str, choices: type[Choice]) -> Choice | None:
        """One word of those that are known, if it is there."""
        return None if name not in self.query else read_choice(self.query, name, choices)

    def maybe_number(self, name: str, *, most: int) -> int | None:
        """A whole number up to `most`, if it is there."""
        if name not in self.query:
            return None
        return read_number(self.query, name, default=0, least=0, most=most)

    def choice(self, name: str, words: tuple[str, ...]) -> str | None:
        """One of these words in the query, if it is there."""
        return read_word(self.query, name, words)

    def flag(self, name: str) -> bool | None:
        """`true` or `false` in the query, if it is there."""
        return read_flag(self.query, name)

    def labels(self, name: str) -> tuple[WantedLabel, ...]:
        """Every label that is asked for in the query."""
        return read_labels(self.query, name)

    def name(self, name: str) -> str | None:
        """A name in the query, if it is there."""
        return read_name(self.query, name)

    def optional_id(self, name: str) -> str | None:
        """An id (ULID) of the query, if it is there."""
        text = self.query.get(name)
        if text is None:
            return None
        try:
            return _ULID.validate_python(text)
        except ValidationError:
            raise ApiRefusal(ApiReason.QUERY_INVALID, f"{name}: expected an id") from None


def read_number(query: Mapping[str, str], name: str, *, default: int, least: int, most: int) -> int:
    """A whole number of a query, inside its bounds."""
    text = query.get(name)
    if text is None:
        return default
    if _WHOLE_NUMBER.fullmatch(text) is None or not least <= int(text) <= most:
        raise ApiRefusal(
            ApiReason.QUERY_INVALID, f"{name}: expected a number from {least} to {most}"
        )
    return int(text)


def read_choice[Choice: StrEnum](
    query: Mapping[str, str], name: str, choices: type[Choice], default: Choice | None = None
) -> Choice:
    """One word of a query, of those that are known. Without a default it must be there."""
    try:
        return choices(query.get(name, default or ""))
    except ValueError:
        expected = ", ".join(choices)
        raise ApiRefusal(ApiReason.QUERY_INVALID, f"{name}: expected one of {expected}") from None


def read_word(query: Mapping[str, str], name: str, words: tuple[str, ...]) -> str | None:
    """One of these words in a query, if it is there."""
    text = query.get(name)
    if text is not None and text not in words:
        expected = f"{name}: expected one of {', '.join(words)}"
        raise ApiRefusal(ApiReason.QUERY_INVALID, expected)
    return text


def read_flag(query: Mapping[str, str], name: str) -> bool | None:
    """`true` or `false` in a query, if it is there."""
    word = read_word(query, name, FLAGS)
    return None if word is None else word == FLAGS[0]


def read_name(query: Mapping[str, str], name: str) -> str | None:
    """A name in a query, if it is there."""
    text = query.get(name)
    if text is not None and re.fullmatch(NAME_PATTERN, text) is None:
        raise ApiRefusal(ApiReason.QUERY_INVALID, f"{name}: expected a name")
    return text


def read_labels(query: Mapping[str, str], name: str) -> tuple[WantedLabel, ...]:
    """Labels that a query asks for, as `read_query` joined them."""
    asked = query[name].split(",") if name in query else ()
    try:
        if len(asked) > MAX_LABELS:
            raise ValueError(f"expected {MAX_LABELS} labels at most")
        return tuple(map(wanted_label, asked))
    except ValueError as error:
        raise ApiRefusal(ApiReason.QUERY_INVALID, f"{name}: {error}") from None


def parse_body[Model: BaseModel](model: type[Model], body: bytes) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise ApiRefusal(ApiReason.BODY_INVALID, places_that_are_wrong(error)) from None


def read_query(request: web.Request, known: tuple[str, ...]) -> dict[str, str]:
    """The query, if every parameter is known to the route and given once; those that may be given
    more often are joined by commas."""
    query = request.query
    if any(name not in known for name in query):
        expected = ", ".join(known) or "none"
        raise ApiRefusal(
            ApiReason.QUERY_INVALID, f"unknown parameter; this route knows: {expected}"
        )
    if any(len(query.getall(name)) > 1 for name in set(query) - REPEATED):
        raise ApiRefusal(ApiReason.QUERY_INVALID, "a parameter is given twice")
    if any("," in value for name in REPEATED for value in query.getall(name, ())):
        raise ApiRefusal(ApiReason.QUERY_INVALID, "a comma; give the parameter several times")
    return {name: ",".join(query.getall(name)) for name in query}


async def read_body(request: web.Request, *, wanted: bool, within_ms: int) -> bytes:
    """The body as sent; empty when the route takes none."""
    if not wanted:
        if request.body_exists and await _bounded(request, within_ms):
            raise ApiRefusal(ApiReason.BODY_INVALID, "this route takes no body")
        return b""
    content_type = request.headers.getall("Content-Type", [])
    if len(content_type) != 1 or _CONTENT_TYPE.fullmatch(content_type[0].strip()) is None:
        raise ApiRefusal(ApiReason.CONTENT_TYPE)
    return await _bounded(request, within_ms)


async def _bounded(request: web.Request, within_ms: int) -> bytes:
    if "Content-Encoding" in request.headers:
        raise ApiRefusal(ApiReason.CONTENT_TYPE, "the body must not be compressed")
    if request.content_length is not None and request.content_length > MAX_BODY_BYTES:
        raise ApiRefusal(ApiReason.BODY_TOO_LARGE)
    try:
        async with asyncio.timeout(within_ms / 1000):
            return await request.read()
    except TimeoutError:
        raise ApiRefusal(ApiReason.BODY_LATE) from None
