"""Handlers of `/livez` (the process answers) and `/readyz` (the fleet can decide).

Both are open to anybody who reaches a listener, so they name checks and say nothing about workers.
No check at all, or a fleet that refuses to say, is not ready. An alarm is for people: the fleet can
decide all the same, so it does not make it unready.
"""

from typing import Final

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.refusals import FleetRefusal

GOOD: Final = "ok"
STATUS_FORM: Final = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}},
}
_CHECKS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
READY_FORM: Final = {
    "type": "object",
    "required": ["status", "checks", "alarms"],
    "properties": {"status": {"type": "string"}, "checks": _CHECKS, "alarms": _CHECKS},
}


@answers.gives(answers.Gives(None, form=STATUS_FORM))
async def live(call: Call) -> web.StreamResponse:
    del call
    return answers.status_object({"status": GOOD})


@answers.gives(answers.Gives(None, form=READY_FORM, also=(503,)))
async def ready(call: Call) -> web.StreamResponse:
    """200 only if every check says `ok`; no check at all is not ready."""
    try:
        checks, alarms = call.service.health(), call.service.alarms()
    except FleetRefusal as refusal:
        checks, alarms = {"fleet": refusal.reason.value}, {}
    good = bool(checks) and all(value == GOOD for value in checks.values())
    answer = {"status": GOOD if good else "not_ready", "checks": checks, "alarms": alarms}
    return answers.status_object(answer, 200 if good else 503)
