"""What the YAML parser complains about, in the words of somebody who writes such files.

Input: the parser's own message. Output: what is wrong with the text and what was expected. A
message without a row is passed on as it is. Source: the messages of ruamel.yaml's scanner and
parser.
"""

from typing import Final

_COLUMN: Final = "this line begins in another column than those it belongs with"
_COLUMNS: Final = (
    "the keys of one mapping, and the dashes of one list, below each other: "
    "two spaces for each level, as in the lines above"
)
_NO_TABS: Final = "spaces"
_BRACKETS: Final = "a comma between two entries, and the bracket that closes the list or mapping"
_WORDS: Final = (
    # what the message contains, what is wrong, what was expected
    ("expected <block end>", _COLUMN, _COLUMNS),
    ("expected '<document start>'", _COLUMN, _COLUMNS),
    (
        "mapping values are not allowed here",
        "a ':' where no key can stand: this line is indented too far, or a text needs quotes",
        f"{_COLUMNS}; and a text with ': ' in it in quotes",
    ),
    ("found character '\\t'", "a tab", _NO_TABS),
    ("found character \"'\\t'\"", "a tab", _NO_TABS),
    ("found a tab character", "a tab", _NO_TABS),
    ("could not find expected ':'", "a line that is no `key: value`", "`key: value`, or `- item`"),
    ("expected ',' or ']'", "a list in brackets that does not end as it should", _BRACKETS),
    ("expected ',' or '}'", "a mapping in braces that does not end as it should", _BRACKETS),
    ("found unexpected end of stream", "a quote that is opened here is not closed", "its end"),
    ("unexpected end of stream", "the file ends in the middle of something", "the rest of it"),
    ("found unknown escape character", "a backslash in double quotes", "single quotes around it"),
    ("that cannot start any token", "a sign that cannot begin a text", "the text in quotes"),
    ("found unexpected ':'", "a ':' inside a text in brackets", "that text in quotes"),
    (
        "sequence entries are not allowed here",
        "a '-' where no list can stand",
        "a list on lines of its own, below its key",
    ),
)


def in_plain_words(message: str) -> tuple[str, str]:
    """What is wrong, and what was expected."""
    for part, what, expected in _WORDS:
        if part in message:
            return what, expected
    return message, "YAML 1.2"
