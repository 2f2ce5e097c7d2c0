"""The goldens of commands that need a running fleet are whole: a new command or a new field of an
answer is noticed here, where it costs nothing. `make goldens` writes them anew.
"""

import json
import re
from typing import Final

import pytest
from pydantic import BaseModel

from palyra_fleet.wire.enrolment_models import EnrolmentView, ReferenceValueView
from palyra_fleet.wire.models import EventView, GrantView, LeaseView, WorkerView
from tests.golden.command_tree import leaves
from tests.golden.transcript import FOLDER

ELSEWHERE: Final = {
    "palyra-fleet doctor": "tests/e2e/test_doctor.py",
    "palyra-fleet config show": "tests/fleet/cli/test_configuration.py",
}
"""Commands whose JSON depends on the machine or its settings, and who looks at it."""
LOOKS: Final = {"list", "show", "requests", "asked", "tail", "verify", "self"}
"""What a viewer may do."""
ANSWERS: Final[dict[str, type[BaseModel]]] = {
    "proxy list": EnrolmentView,
    "reference list": ReferenceValueView,
    "worker list": WorkerView,
    "worker show": WorkerView,
    "lease list": LeaseView,
    "grant list": GrantView,
    "event tail": EventView,
}


def test_every_command_of_operators_that_answers_json_has_a_line_in_the_story() -> None:
    told = (FOLDER / "fleet-answers.txt").read_text()
    missing = [
        leaf.name
        for leaf in leaves()
        if leaf.words[0] == "palyra-fleet" and leaf.answers_json
        if f"$ {leaf.name} " not in told and leaf.name not in ELSEWHERE
    ]
    assert missing == [], "add them to tests/golden/test_fleet_answers.py, then `make goldens`"


def test_every_command_that_changes_something_was_tried_as_a_viewer() -> None:
    told = (FOLDER / "refused-role.txt").read_text()
    missing = [
        leaf.name
        for leaf in leaves()
        if leaf.asks_the_fleet and leaf.words[-1] not in LOOKS
        if f"$ {' '.join(leaf.asked())}\n" not in re.sub(r"<sha256-1>", "0" * 64, told)
    ]
    assert missing == [], "run `make goldens`, and look at what a viewer is told"


@pytest.mark.parametrize("command", ANSWERS)
def test_an_answer_in_the_story_has_the_fields_of_today(command: str) -> None:
    told = (FOLDER / "fleet-answers.txt").read_text()
    found = re.search(rf"^\$ palyra-fleet {command} .*\n([\[{{][^$]*)\n\[0\]", told, re.MULTILINE)
    assert found is not None
    answer = json.loads(re.sub(r"(?<=: )<\w+>", "0", found[1]))
    one = answer[0] if isinstance(answer, list) else answer
    assert one.keys() == ANSWERS[command].model_fields.keys(), "run `make goldens`"
