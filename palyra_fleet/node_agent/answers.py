"""What a node answers when the fleet dispatches a capability to it. Pure but for looking at the
machine: `echo`, `system.health`, `system.identity`.

Input is JSON as bytes; output a JSON value, or a failure with a reason. Whatever does not fit
`max_payload_bytes` is a failure: the fleet would refuse it too.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

type Json = object
PACKAGE: Final = "palyra-egress-fleet"


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one dispatch, as `capability.result` carries it."""

    success: bool
    output: Json = None
    error: str = ""

    def payload(self, request_id: str) -> bytes:
        """The event's payload."""
        fields: dict[str, Json] = {"request_id": request_id, "success": self.success}
        fields |= {"output_json": self.output} if self.success else {"error": self.error}
        return json.dumps(fields, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node says about itself. `started_monotonic_s` is when the agent began."""

    device_id: str
    client_kind: str
    fingerprint: str
    started_monotonic_s: float

    def identity(self) -> Json:
        return {
            "device_id": self.device_id,
            "client_kind": self.client_kind,
            "certificate_fingerprint": self.fingerprint,
            "platform": platform_name(),
            "version": version(PACKAGE),
        }

    def health(self) -> Json:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        up_ms = int((time.monotonic() - self.started_monotonic_s) * 1000)
        return {"status": "ok", "uptime_ms": up_ms, "load_1m": load, "cpus": os.cpu_count()}


def platform_name() -> str:
    """The platform a node registers as: `linux-x86_64` and the like."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def capabilities() -> tuple[str, ...]:
    """What this agent offers, in the order it registers them."""
    return ("echo", "system.health", "system.identity")


def answer(capability: str, input_json: bytes, max_payload_bytes: int, machine: Machine) -> Answer:
    """Carry out one dispatch. Never raises."""
    try:
        given: Json = json.loads(input_json) if input_json else None
    except (ValueError, RecursionError):
        return Answer(False, error="the input is not JSON")
    table: Mapping[str, Callable[[], Json]] = {
        "echo": lambda: given,
        "system.health": machine.health,
        "system.identity": machine.identity,
    }
    work = table.get(capability)
    if work is None:
        return Answer(False, error=f"this node has no capability {capability[:64]!r}")
    output = work()
    size = len(json.dumps(output, separators=(",", ":")).encode())
    if max_payload_bytes and size > max_payload_bytes:
        return Answer(False, error=f"the output has {size} bytes; at most {max_payload_bytes}")
    return Answer(True, output)
