"""The documents as CommonMark: their links, headings, code spans and blocks, with their lines."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN: Final = MarkdownIt("commonmark").enable("table")
_COMMENT: Final = re.compile(r"<!--\s*(?P<words>.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `marker` is the comment right before it."""

    place: str
    language: str
    text: str
    marker: str


def tokens(page: Path) -> list[Token]:
    return _MARKDOWN.parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    marker = ""
    for token in tokens(page):
        if token.type == "html_block":
            found = _COMMENT.fullmatch(token.content.strip())
            marker = found["words"] if found else ""
        elif token.type == "fence":
            line = (token.map or [0])[0] + 1
            yield Block(f"{page.name}:{line}", token.info.strip(), token.content, marker)
            marker = ""
        elif token.type not in {"paragraph_close", "list_item_close"}:
            marker = ""


def inline(page: Path) -> Iterator[tuple[int, Token]]:
    """Every inline token of a page, with its line."""
    for token in tokens(page):
        for child in token.children or ():
            yield (token.map or [0])[0] + 1, child


def steps(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Each command of a `console` block, and the lines that it puts out. A command stands after
    `$ `, and goes on in the next line where its own ends with a backslash. Raises ValueError where
    there is none, or something before the first."""
    found: list[tuple[str, list[str]]] = []
    goes_on = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
            goes_on = line.endswith("\\")
        elif not found:
            raise ValueError(f"{block.place}: no command, which begins with `$ `, before {line!r}")
        elif goes_on:
            command, put_out = found.pop()
            found.append((f"{command}\n{line}", put_out))
            goes_on = line.endswith("\\")
        else:
            found[-1][1].append(line)
    if not found:
        raise ValueError(f"{block.place}: no command")
    yield from found


def typed(block: Block) -> str:
    """What a reader types of a block for a shell: all of it, or the commands of a `console`."""
    if block.language != "console":
        return block.text
    return "\n".join(command for command, _ in steps(block)) + "\n"


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Where the links and pictures of a page lead."""
    for line, token in inline(page):
        if token.type in {"link_open", "image"}:
            yield line, str(token.attrGet("href") or token.attrGet("src"))


def anchors(page: Path) -> set[str]:
    """What `#…` may name on a page, as GitHub makes it of headings."""
    found: set[str] = set()
    heading = False
    for token in tokens(page):
        if token.type == "inline" and heading:
            words = "".join(one.content for one in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            number = 0
            while (name := slug if not number else f"{slug}-{number}") in found:
                number += 1
            found.add(name)
        heading = token.type == "heading_open"
    return found
