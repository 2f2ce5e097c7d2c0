"""The pages of docs/reference/ say what the code says today, and so do the goldens of the commands.

What needs a running fleet is only held against the commands and fields of today here, where it
costs nothing: `make goldens` writes it anew, and tests/golden compares all of it.
"""

import json
import re
import shlex
from typing import Final

import pytest
from pydantic import BaseModel

from palyra_fleet.wire.enrolment_models import EnrolmentView, ReferenceValueView
from palyra_fleet.wire.lease_models import LeaseView
from palyra_fleet.wire.models import EventView, GrantView, WorkerView
from scripts.make_reference import FOLDER as PAGES_FOLDER
from scripts.make_reference import PAGES
from tests.golden.command_tree import PARSERS, leaves
from tests.golden.transcript import FOLDER, Transcript, compare
from tests.project.test_golden_nothing_there import NOT_HERE

GROUPS = sorted({"-".join(leaf.words[:2]) for leaf in leaves()})

LOOKS: Final = {
    *("list", "show", "requests", "asked", "offers", "tail", "verify", "self", "explain", "check")
}
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


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_makes_today(name: str) -> None:
    assert (PAGES_FOLDER / name).read_bytes() == PAGES[name](), "run `make reference`"


def test_every_page_is_made_from_the_code() -> None:
    assert {path.name for path in PAGES_FOLDER.iterdir()} == set(PAGES)


@pytest.mark.parametrize("group", GROUPS)
def test_every_mistake_is_told_as_it_was_read_and_found_good(
    group: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(40 + len(group)))  # no width is in what is said
    transcript = Transcript(capsys)
    for leaf in leaves():
        if "-".join(leaf.words[:2]) != group:
            continue
        for program, *arguments in leaf.mistakes():
            with pytest.raises(SystemExit) as ended:
                PARSERS[program].parse_args(arguments)
            told = capsys.readouterr()
            assert (ended.value.code, told.out) == (2, "")
            lines = told.err.splitlines()
            assert [line[:7] for line in lines[1:]] == ["  why: ", "  do:  "]
            transcript.add(shlex.join([program, *arguments]), (2, "", told.err))
    compare(f"mistakes/{group}", transcript.text())


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


def test_every_command_was_tried_where_nothing_was_ever_started() -> None:
    told = "".join(file.read_text() for file in (FOLDER / "nothing-there").iterdir())
    missing = [
        leaf.name for leaf in leaves() if leaf.name not in NOT_HERE and f"$ {leaf.name}" not in told
    ]
    assert missing == [], "run `make goldens`, and look at what they say of what is missing"
