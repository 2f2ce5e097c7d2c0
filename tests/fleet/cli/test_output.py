"""What strangers chose moves no cursor of an operator's terminal."""

import pytest

from palyra_fleet.cli.output import say


def test_chatter_shows_control_characters_as_question_marks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say("refused: \x1b]0;title\x07\r\u202e\nnext line")
    assert capsys.readouterr().err == "refused: ?]0;title???\nnext line\n"
