"""Every command of both programs has its help, an error and, where it answers programs, such an
answer among what is compared: docs/reference/cli.md and the goldens.

The commands come out of the parsers, so a new one is found here.
"""

import re
from pathlib import Path
from typing import Final

from scripts.make_reference import FOLDER as PAGES
from tests.golden.command_tree import leaves
from tests.golden.transcript import FOLDER, answers_in, documents

STORIES: Final = ("egress-answers", "fleet-answers", "fleet-decisions")
ELSEWHERE: Final = {
    "palyra-egress proxy show": "tests/egress/proxy/signals/test_admin_socket.py",
    "palyra-egress config show": "tests/fleet/cli/test_configuration.py",
    "palyra-fleet config show": "tests/fleet/cli/test_configuration.py",
    "palyra-fleet doctor": "tests/e2e/test_doctor.py",
}
"""Commands whose JSON needs a running proxy, or depends on the machine or its settings; and who
looks at it."""
NAMED: Final = re.compile(r"<[a-z0-9 ]+(?:-[0-9]+)?>")


def lacking(told: set[str]) -> list[str]:
    """The commands of which none of these is."""
    shown = [f"{command} " for command in told]
    return [
        leaf.name
        for leaf in leaves()
        if not any(command.startswith(f"{leaf.name} ") for command in shown)
    ]


def answers_programs(out: str) -> bool:
    """Whether this is JSON; a name that stands for a number is read as one."""
    try:
        return documents(NAMED.sub("0", out)) != []
    except ValueError:
        return False


def test_every_command_has_its_help_on_the_page() -> None:
    page = (PAGES / "cli.md").read_text(encoding="utf-8")
    helped = re.findall(r"^#+ `(.+)`\n\n```text\nusage: \1\b", page, re.MULTILINE)
    assert lacking(set(helped)) == [], "run `make reference`"


def test_every_command_has_a_golden_error() -> None:
    refused = {
        command
        for golden in FOLDER.rglob("*.txt")
        for command, (code, _, err) in answers_in(golden.read_text(encoding="utf-8"))
        if code and err
    }
    assert lacking(refused) == [], "run `make goldens`, and look at what they say"


def test_every_command_that_answers_json_has_a_golden_answer_that_is_no_refusal() -> None:
    told = {
        command
        for story in STORIES
        for command, (_, out, _) in answers_in((FOLDER / f"{story}.txt").read_text("utf-8"))
        if answers_programs(out)
    }
    answer = {leaf.name for leaf in leaves() if leaf.answers_json}
    missing = set(lacking(told)) & answer
    assert missing == ELSEWHERE.keys(), "tell it in a story of tests/golden, then `make goldens`"


def test_every_command_that_is_looked_at_elsewhere_says_where(repository: Path) -> None:
    assert [place for place in ELSEWHERE.values() if not (repository / place).is_file()] == []
