"""What is shown to people: in words, and what strangers chose moves no cursor of a terminal."""

import pytest
from pydantic import BaseModel

from palyra_fleet.cli.output import quoted, say, show_one


def test_chatter_shows_control_characters_as_question_marks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say("refused: \x1b]0;title\x07\r\u202e\nnext line")
    assert capsys.readouterr().err == "refused: ?]0;title???\nnext line\n"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("a file", "'a file'"),
        ("user:hunter2@siem.example/in", "'…@siem.example/in'"),
        ("siem.example/in?token=hunter2", "'siem.example/in?…'"),
        ("https:/user:hunter2@siem.example/in", "'…@siem.example/in'"),
        ("https://user:hunter2@siem.example/in", "'https://…@siem.example/in'"),
        ("https://user:hunt/@er2@siem.example/in", "'https://…@siem.example/in'"),
        ("https://siem.example/in?token=hunter2", "'https://siem.example/in?…'"),
        ("https://siem.example/in#hunter2", "'https://siem.example/in?…'"),
        ("https://" + "a" * 80, "'https://" + "a" * 52 + "'"),
    ],
)
def test_what_does_not_fit_is_repeated_without_what_may_be_secret(given: str, told: str) -> None:
    assert quoted(given) == told


class _Shown(BaseModel):
    names: tuple[str, ...] = ("a", "\x1b[2Jb")
    nothing: tuple[str, ...] = ()
    labels: dict[str, str] = {"team": "blue", "zone": "\x1b[2J"}
    demanded: dict[str, object] = {"new_key": True, "due_at_unix_ms": 1_000, "by": None}
    at_unix_ms: int = 1_000


def test_what_has_parts_is_told_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    show_one(_Shown(), "table")
    told = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert told == [
        ["names", "a, ?[2Jb"],
        ["nothing", "-"],
        ["labels", "team=blue, zone=?[2J"],
        ["demanded", "new_key=True, due_at=1970-01-01 00:00:01 UTC, by=-"],
        ["at", "1970-01-01 00:00:01 UTC"],
    ]
