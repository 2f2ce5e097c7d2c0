"""Every mistake that the command line itself finds: what is missing, unknown or out of range."""

import shlex

import pytest

from tests.golden.command_tree import PARSERS, leaves
from tests.golden.transcript import Transcript, compare

GROUPS = sorted({"-".join(leaf.words[:2]) for leaf in leaves()})


@pytest.mark.parametrize("width", ["40", "200"])
@pytest.mark.parametrize("group", GROUPS)
def test_every_mistake_is_told_as_it_was_read_and_found_good(
    group: str, width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
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
