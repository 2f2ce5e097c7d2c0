"""The log of refused calls: a line each as far as `RefusalLines` goes, and then their number.

A number is told when its window is over, also where nobody calls any more, and what is left when
the application ends. Lines hold nothing of what a caller sent but the method.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from aiohttp import web

from palyra_fleet.api.problems import REASON
from palyra_fleet.api.refusal_lines import LeftOut, RefusalLines
from palyra_fleet.logs.fields import Field, told, within

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RefusalLog:
    """One per application."""

    _lines: RefusalLines = field(default_factory=RefusalLines)
    _timer: asyncio.TimerHandle | None = None

    def refused(self, request: web.Request, answer: web.StreamResponse, route: str) -> None:
        """`route` as its table spells it, empty for none."""
        loop = asyncio.get_running_loop()
        self._tell_what_is_over(loop)
        reason, address = answer.get(REASON), _whose(request.remote or "")
        if self._lines.note(address, reason or str(answer.status), loop.time()):
            _tell(request, answer, route or "?", reason)
        elif self._timer is None:
            self._wake_at_the_next_end(loop)

    async def close(self, application: web.Application) -> None:
        """Tell what was left out until now."""
        del application
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in self._lines.over(float("inf")):
            _tell_number(one)

    def _tell_what_is_over(self, loop: asyncio.AbstractEventLoop) -> None:
        with within({}, alone=True):  # it belongs to no call
            for one in self._lines.over(loop.time()):
                _tell_number(one)

    def _wake_at_the_next_end(self, loop: asyncio.AbstractEventLoop) -> None:
        end_s = self._lines.next_end_s()
        self._timer = None if end_s is None else loop.call_at(end_s, self._woken, loop)

    def _woken(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tell_what_is_over(loop)
        self._wake_at_the_next_end(loop)


def _whose(address: str) -> str:
    """Any local program may call from any of the 16 million loopback addresses: they are one."""
    return "127.0.0.1" if address.startswith("127.") else address


def _tell(request: web.Request, answer: web.StreamResponse, route: str, reason: str | None) -> None:
    fields = {
        Field.ACTION: "call-refused",
        Field.REASON: reason,
        Field.METHOD: request.method,
        Field.ROUTE: route,
        Field.STATUS: answer.status,
        Field.ADDRESS: request.remote or None,
    }
    said = (request.method, route, reason or answer.status)
    _log.info("%s %s was refused: %s", *said, extra=told(fields))


def _tell_number(left_out: LeftOut) -> None:
    fields = {
        Field.ACTION: "calls-refused",
        Field.REASON: left_out.reason,
        Field.ADDRESS: left_out.address or None,
    }
    where = left_out.address or ("the socket" if left_out.address == "" else "several addresses")
    said = (left_out.calls, where, left_out.reason or "several reasons")
    _log.info("%d more calls of %s were refused: %s", *said, extra=told(fields))
