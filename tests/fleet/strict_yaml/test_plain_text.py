"""Which plain scalars every reader takes as text: more are numbers elsewhere."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.strict_yaml.document import is_plain_text, read_yaml

_GO_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_GO_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[0-9]+)")


def is_number_without_underscores(text: str) -> bool:
    """As readers do that take underscores out first: wherever a text begins as a number does."""
    bare = text.replace("_", "")
    begins = text[:1] != "" and text[0] in "+-.0123456789"
    return begins and bool(_GO_FLOAT.fullmatch(bare) or _GO_INTEGER.fullmatch(bare))


@pytest.mark.parametrize(
    "text",
    ["-_1", "+_1", "1_e0", "1e_0", "1_", "-1_", "._5", "0_x1f", "0x_1f", "0b_1", "1_:30", "0_"],
)
def test_a_number_with_underscores_anywhere_must_be_quoted(text: str) -> None:
    assert not is_plain_text(text)
    document = read_yaml(f"a: {text}\n".encode(), max_bytes=100, what="a file")
    assert [mistake.fault.value for mistake in document.mistakes] == ["ambiguous_value"]
    assert read_yaml(f"a: '{text}'\n".encode(), max_bytes=100, what="a file").mistakes == ()


@pytest.mark.parametrize("text", ["_1", "a_1", "-_", "v1_0", "1_a", "-_a", "key_1e0", "1-_2"])
def test_names_with_underscores_are_text(text: str) -> None:
    assert is_plain_text(text)


@given(st.text(alphabet="+-._0123456789exbo:", min_size=1, max_size=8))
def test_no_text_is_a_number_elsewhere(text: str) -> None:
    if is_number_without_underscores(text):
        assert not is_plain_text(text)
