"""What commands said, as a transcript that does not depend on place, time or chance.

Commands that answer the same, one after the other, stand above one answer. What differs from run
to run is named instead: `<id-1>` is the first id that was seen, and so on.
"""

import difflib
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.golden.command_tree import MAINS

FOLDER: Final = Path(__file__).parent / "expected"
RENEW: Final = "PALYRA_RENEW_GOLDENS"

type Answer = tuple[int, str, str]

_CHANCE: Final = (
    ("id", re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")),
    ("signature", re.compile(r"\b[0-9a-f]{128}\b")),
    ("sha256", re.compile(r"\b[0-9a-f]{64}\b")),
    ("authority", re.compile(r"\b[0-9a-f]{40}\b")),
    ("fence", re.compile(r'(?<="highest_fence": )[0-9]{16}\b|(?<=fences go on after )[0-9]{16}\b')),
    ("key id", re.compile(r"\b[0-9a-f]{16}\b")),
    ("serial", re.compile(r"(?<=Root )[0-9a-f]{8}\b")),
    ("day", re.compile(r"(?<=until )20[0-9]{2}-[0-9]{2}-[0-9]{2}\b")),
    ("certificate", re.compile(r"(?<=-----BEGIN CERTIFICATE-----\n)[^-]*(?=\n-----END)")),
    ("ms", re.compile(r"\b[12][0-9]{12}\b")),
    ("time", re.compile(r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(?:Z| UTC|\+00:00)?")),
    ("port", re.compile(r"(?<=127\.0\.0\.1:)[0-9]{4,5}\b")),
    # of a worker: which of these is shown depends on how long ago its program ended as well
    ("state", re.compile(r'(?<="state": ")(?:available|draining|offline)(?=",\n +"admission")')),
    ("liveness", re.compile(r'(?<="liveness": ")[a-z]+')),
    ("event", re.compile(r'(?<="last_event_name": ")[a-z._]+')),
    ("count", re.compile(r'(?<="entries": )[0-9]+|(?<="events": )[0-9]+')),
    ("bytes", re.compile(r'(?<="size_bytes": )[0-9]+')),
    ("seq", re.compile(r'(?<="seq": )[0-9]+(?=,\n +"last_event_sha256")')),
    ("age", re.compile(r'(?<="age": ")[0-9]+ [a-z]+')),
    ("s", re.compile(r'(?<="certificate_expires_in_s": )[0-9]+')),
    ("token", re.compile(r"(?<![\w/+-])[\w-]{43}(?![\w/+=-])")),
    ("key", re.compile(r"(?<![\w/+-])[\w/+]{43}=")),
)
_CODE: Final = re.compile(r"\[([0-9]+)\]")
_NUMBERED: Final = {"id", "sha256"}
_KEPT: Final = re.compile(r"01ARZ3NDEKTSV4RRFFQ69G5FAV|A{43}=")
"""Samples of the tests, which are the same everywhere."""


@dataclass(slots=True)
class Transcript:
    """Commands in this process, and what they said; `places` are written by their name."""

    captured: pytest.CaptureFixture[str]
    places: dict[str, str] = field(default_factory=dict)
    said: list[tuple[str, Answer | None]] = field(default_factory=list)

    def __call__(self, *command: str) -> Answer:
        """Run one command, and write down what it answered."""
        answer = self.quietly(*command)
        self.add(shlex.join(command), answer)
        return answer

    def quietly(self, *command: str) -> Answer:
        """Run one command, and write nothing down."""
        self.captured.readouterr()
        program, *arguments = command
        try:
            code = MAINS[program](arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        told = self.captured.readouterr()
        return code, told.out, told.err

    def add(self, command: str, answer: Answer) -> None:
        self.said.append((command, answer))

    def heading(self, words: str) -> None:
        self.said.append((f"# {words}", None))

    def text(self) -> str:
        """The transcript; equal answers in a row are told once."""
        lines: list[str] = []
        for number, (command, answer) in enumerate(self.said):
            if answer is None:
                lines += [command, ""]
                continue
            lines.append(f"$ {command}")
            if number + 1 == len(self.said) or self.said[number + 1][1] != answer:
                lines += [*_shown(answer), ""]
        return self._masked("\n".join(lines))

    def _masked(self, text: str) -> str:
        for place, name in self.places.items():
            text = text.replace(place, name)
        for kind, pattern in _CHANCE:
            seen: dict[str, str] = {}

            def named(found: re.Match[str], kind: str = kind, seen: dict[str, str] = seen) -> str:
                if _KEPT.fullmatch(found[0]):
                    return found[0]
                number = f"-{len(seen) + 1}" if kind in _NUMBERED else ""
                return seen.setdefault(found[0], f"<{kind}{number}>")

            text = pattern.sub(named, text)
        return text


def _shown(answer: Answer) -> Iterable[str]:
    code, out, err = answer
    yield from out.rstrip("\n").split("\n") if out else ()
    yield from (f"! {line}".rstrip() for line in err.rstrip("\n").split("\n") if err)
    yield f"[{code}]"


def answers_in(text: str) -> Iterator[tuple[str, Answer]]:
    """Every command of a transcript, with what it answered; what differs from run to run is named
    as in the transcript."""
    commands: list[str] = []
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append(line.removeprefix("$ "))
            lines = []
        elif ended := _CODE.fullmatch(line):
            out = "\n".join(one for one in lines if not one.startswith("!"))
            err = "\n".join(one[2:] for one in lines if one.startswith("!"))
            yield from ((command, (int(ended[1]), out, err)) for command in commands)
            commands = []
        else:
            lines.append(line)


def documents(text: str) -> list[object]:
    """The JSON documents in this text, one after the other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def compare(name: str, text: str) -> None:
    """The golden `name` says this. With PALYRA_RENEW_GOLDENS it is made to."""
    golden = FOLDER / f"{name}.txt"
    if os.environ.get(RENEW):
        golden.write_text(text, encoding="utf-8")
    expected = golden.read_text(encoding="utf-8") if golden.exists() else ""
    changed = "\n".join(
        difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", n=1)
    )
    assert not changed, f"{golden.name}: look, then run `make goldens`:\n{changed[:6000]}"
