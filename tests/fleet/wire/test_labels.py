"""What a label may be, as in Kubernetes."""

import pytest
from pydantic import TypeAdapter, ValidationError

from palyra_fleet.cli.argument_types import label_change
from palyra_fleet.wire.labels import LabelKey, LabelMap, LabelValue, wanted_label

KEY, VALUE, MAP = TypeAdapter(LabelKey), TypeAdapter(LabelValue), TypeAdapter(LabelMap)
NAMES = ["a", "A1", "a-b_c.d", "x" * 63]
NO_NAMES = [
    "-a",
    "a-",
    ".a",
    "a.",
    "_",
    "a b",
    "a=b",
    "a,b",
    "a/b/c",
    "é",
    "x" * 64,
    "a\n",
    "/a",
    "a/",
]


@pytest.mark.parametrize("key", [*NAMES, "pool.example/zone", "a/b", f"{'y' * 63}.z/{'x' * 62}"])
def test_a_key_is_a_name_behind_a_dns_name_if_wanted(key: str) -> None:
    assert KEY.validate_python(key) == key
    assert wanted_label(key) == (key, None)
    assert wanted_label(f"{key}=") == (key, "")
    assert wanted_label(f"{key}=1") == (key, "1")


@pytest.mark.parametrize(
    "key", [*NO_NAMES, "", "A.example/zone", f"{'y' * 63}.{'z' * 2}/{'x' * 63}"]
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValidationError):
        KEY.validate_python(key)


@pytest.mark.parametrize("value", [*NAMES, ""])
def test_a_value_is_a_name_or_empty(value: str) -> None:
    assert VALUE.validate_python(value) == value


@pytest.mark.parametrize("value", NO_NAMES)
def test_what_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        VALUE.validate_python(value)
    with pytest.raises(ValueError, match="KEY"):
        wanted_label(f"a={value}")


def test_there_are_32_labels_at_most() -> None:
    labels = {f"k{number}": "" for number in range(33)}
    with pytest.raises(ValidationError):
        MAP.validate_python(labels)
    del labels["k0"]
    assert MAP.validate_python(labels) == labels


@pytest.mark.parametrize(
    ("text", "change"),
    [("a=1", ("a", "1")), ("a=", ("a", "")), ("a-", ("a", None)), ("x/a-b-", ("x/a-b", None))],
)
def test_a_change_on_the_command_line(text: str, change: tuple[str, str | None]) -> None:
    assert label_change(text) == change


@pytest.mark.parametrize("text", ["a", "-", "a=b-", "=1", "", "a=b=c"])
def test_what_is_no_change_is_told(text: str) -> None:
    with pytest.raises(Exception, match="KEY- to take it"):
        label_change(text)
