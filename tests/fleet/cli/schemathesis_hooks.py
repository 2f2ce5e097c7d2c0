"""What schemathesis is told about this API, and what it notes of every answer.

Loaded by schemathesis itself (`SCHEMATHESIS_HOOKS`). Each call is one line of JSON in the file that
`PALYRA_NOTES` names: method, path as the document has it, status, reason, and whether it carried
the credentials of `PALYRA_CREDENTIALS`, since schemathesis leaves them away or bends them as well.
Two calls are changed: one that asks the fleet to wait asks for a second at most, how waiting ends
has its own tests; and nobody revokes or replaces the principal of `PALYRA_OWN_NAME`, which is the
caller, since schemathesis takes names from answers and would be a stranger from there on.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import schemathesis

_LONGEST_WAIT_S: Final = 1
_CREDENTIALS: Final[dict[str, str]] = json.loads(os.environ["PALYRA_CREDENTIALS"])
_OWN_NAME: Final = os.environ["PALYRA_OWN_NAME"]
_NOTES: Final = Path(os.environ["PALYRA_NOTES"])


@schemathesis.hook
def before_call(context: Any, case: Any, **arguments: Any) -> None:
    del context, arguments
    if (case.path_parameters or {}).get("name") == _OWN_NAME:
        case.path_parameters["name"] = f"{_OWN_NAME}-of-others"
    wait_s = (case.query or {}).get("wait")
    if isinstance(wait_s, int | float) and _LONGEST_WAIT_S < wait_s <= _longest(case):
        case.query["wait"] = _LONGEST_WAIT_S


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    del context
    problem = "problem+json" in " ".join(response.headers.get("content-type", []))
    reason = json.loads(response.content)["reason"] if problem and response.content else ""
    sent = response.request.headers
    whole = all(sent.get(name) == value for name, value in _CREDENTIALS.items())
    note = (case.method.upper(), case.operation.path, response.status_code, reason, whole)
    with _NOTES.open("a") as notes:
        notes.write(json.dumps(note) + "\n")


def _longest(case: Any) -> float:
    parameters = case.operation.definition.raw["parameters"]
    (wait,) = [one["schema"]["maximum"] for one in parameters if one["name"] == "wait"]
    return float(wait)
