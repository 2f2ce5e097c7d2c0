"""What a node says on its stream: strangers' JSON, read into values or refused. Pure."""

import json
from dataclasses import dataclass
from typing import Final

from palyra_fleet.nodes.capabilities import CapabilityResult
from palyra_fleet.nodes.capability_refusals import (
    CapabilityReason,
    CapabilityRefusal,
    CapabilityRefused,
)
from palyra_fleet.nodes.strict_json import strict_json

MAX_EVENT_NAME: Final = 128
MEDIATION: Final = "capability.awaiting_local_mediation"
RESULT: Final = "capability.result"


@dataclass(frozen=True, slots=True)
class MediationReport:
    request_id: str


@dataclass(frozen=True, slots=True)
class ResultReport:
    request_id: str
    result: CapabilityResult


def read_event(name: str, payload_json: bytes) -> MediationReport | ResultReport | None:
    """What an event means; None for one that only says that the node is there.

    A payload may be absent where the event needs none. Raises CapabilityRefused.
    """
    if not 1 <= len(name) <= MAX_EVENT_NAME or not name.isprintable():
        raise CapabilityRefused(CapabilityRefusal(CapabilityReason.EVENT_NAME))
    payload = _object(payload_json) if payload_json or name in {MEDIATION, RESULT} else {}
    match name:
        case "capability.awaiting_local_mediation":
            return MediationReport(_request_id(payload))
        case "capability.result":
            return ResultReport(_request_id(payload), _result(payload))
        case _:
            return None


def _object(payload_json: bytes) -> dict[str, object]:
    try:
        payload = strict_json(payload_json)
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        raise CapabilityRefused(CapabilityRefusal(CapabilityReason.PAYLOAD_NOT_JSON))
    return payload


def _request_id(payload: dict[str, object]) -> str:
    request_id = payload.get("request_id")
    if not isinstance(request_id, str) or not request_id.strip():
        raise CapabilityRefused(CapabilityRefusal(CapabilityReason.NO_REQUEST_ID))
    return request_id.strip()


def _result(payload: dict[str, object]) -> CapabilityResult:
    """What is absent or of another kind counts as a failure without output, as published."""
    error = payload.get("error")
    output = payload.get("output_json")
    return CapabilityResult(
        success=payload.get("success") is True,
        output_json=b"" if "output_json" not in payload else _compact(output),
        error=error if isinstance(error, str) else "",
    )


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
