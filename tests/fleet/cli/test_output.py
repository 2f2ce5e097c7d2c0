"""What strangers chose moves no cursor of an operator's terminal."""

import pytest

from palyra_fleet.cli.output import quoted, say


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
