"""Mirror of policy/policy_format.py and commented_tree.py: one form, no comment lost."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palyra_egress.policy.commented_tree import comment_texts
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.meaning import meaning, meaning_digest
from palyra_egress.policy.policy_format import FormatRefused, format_policy
from tests.egress.policy.policy_text import COMPLETE, HEAD, SAMPLE_FILES
from tests.egress.policy.test_judge_properties import MODES, RULES


def formatted(text: str) -> str:
    """The canonical text, once it is proven that it is one and means the same."""
    once = format_policy(text.encode(), "f")
    assert format_policy(once, "f") == once
    before, after = load_policy(text.encode(), "f").spec, load_policy(once, "f").spec
    assert meaning(before) == meaning(after) and meaning_digest(before) == meaning_digest(after)
    assert comment_texts(text) == comment_texts(once.decode())
    return once.decode()


MESSY = """\
# about the file

# more about it
name: x
# about the version
version: 1  # the first

tests: # what must work
    - {expect: deny, profile: p, request: "GET https://q.example/"} # host
    # after the tests
profiles: {p: [r, 's'], "q": []}

rules:
# about r
- hosts: [A.Example, # first
     b.example] # both
  # the id
  id: r
  limits: {max_response_bytes: 33554432, max_request_bytes: 1024KiB}
  methods: [get, 'post']
  reason: | # why
    two
    lines: x
  # after the reason


  # after a gap
-  # about s
   id: s
   hosts:
     # about the wildcard
     - '*.x.example'
     - "b.example"  # plain
   until: 2027-03-31t18:00:00z
   owner: 'a, b'
   private: [FD00::/64]
violations: {strike: {window: 600s, on: [host_denied], limit: 3}}
# the end
"""
TIDY = """\
# about the file

# more about it
# about the version
version: 1 # the first
name: x

rules:
  # about r
  # the id
  - id: r
    hosts: # both
      - a.example # first
      - b.example
    methods: [GET, POST]
    reason: "two\\nlines: x\\n" # why
    # after the reason

    # after a gap
    limits: {max_request_bytes: 1MiB, max_response_bytes: 32MiB}
  # about s
  - id: s
    hosts:
      # about the wildcard
      - "*.x.example"
      - b.example # plain
    private: [fd00::/64]
    until: 2027-03-31T18:00:00Z
    owner: a, b
violations: {strike: {on: [host_denied], limit: 3, window: 10m}}
# the end
profiles: {p: [r, s], q: []}

tests: # what must work
  - {profile: p, request: GET https://q.example/, expect: deny} # host
  # after the tests
"""


def test_a_messy_file_becomes_a_tidy_one_with_every_comment_where_it_belongs() -> None:
    assert formatted(MESSY) == TIDY


@pytest.mark.parametrize("path", SAMPLE_FILES, ids=lambda path: path.stem)
def test_every_sample_policy_is_in_the_canonical_form(path: Path) -> None:
    """`formatted` needs a policy that stands alone; a part of one has its own words only."""
    source = path.read_bytes()
    assert format_policy(source, str(path)) == source


def test_a_policy_with_every_key_keeps_all_of_it() -> None:
    assert formatted(COMPLETE).count("\n") >= COMPLETE.count("\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("limits: {max_request_bytes: 2048}", "limits: {max_request_bytes: 2KiB}"),
        ("limits: {max_request_bytes: 1000}", "limits: {max_request_bytes: 1000}"),
        ("limits: {max_request_bytes: '1024MiB'}", "limits: {max_request_bytes: 1GiB}"),
        ("rules: []", "rules: []"),
        ("profiles: {'443': []}", "profiles: {443: []}"),
        ("rules: [{hosts: ['true', 'y.test'], id: r, acknowledge: [single_label]}]", '"true"'),
        ("rules: [{hosts: ['a.test'], id: r, owner: '443'}]", 'owner: "443"'),
        ("rules: [{hosts: ['a.test'], id: r, reason: 'a # b'}]", 'reason: "a # b"'),
        ("rules: [{hosts: ['a.test'], id: r, reason: 'é: ü'}]", 'reason: "é: ü"'),
        ("rules: [{hosts: ['a.test'], id: r, reason: \"a\\nb\"}]", 'reason: "a\\nb"'),
        ("rules: [{hosts: ['::1'], id: r}]", 'hosts: ["::1"]'),
    ],
)
def test_values_are_written_in_one_way(before: str, after: str) -> None:
    assert after in formatted(f"{HEAD}{before}\n")


def test_a_line_that_is_too_long_becomes_a_list_of_lines() -> None:
    hosts = ", ".join(f"host-number-{number}.example" for number in range(12))
    text = formatted(f"{HEAD}rules:\n  - id: r\n    hosts: [{hosts}]\n")
    assert "    hosts:\n      - host-number-0.example\n" in text
    short = "  - {id: r, hosts: [a.example, b.example]}\n"
    assert short in formatted(f"{HEAD}rules:\n{short}")


@pytest.mark.parametrize("text", ["version: 1\n", "name: [\n", f"{HEAD}colour: red\n"])
def test_a_file_that_does_not_load_is_refused(text: str) -> None:
    with pytest.raises(PolicyFileError):
        format_policy(text.encode(), "f")


def test_a_policy_whose_tests_fail_is_refused() -> None:
    text = f"{HEAD}tests: [{{profile: p, request: GET https://a.test/, expect: allow}}]\n"
    with pytest.raises(PolicyFileError):
        format_policy(f"{text}profiles: {{p: []}}\n".encode(), "f")


@given(RULES, MODES)
def test_formatting_twice_changes_nothing_and_the_meaning_never(
    items: list[str], mode: str
) -> None:
    lines = "".join(f"  - {{{item}, id: r{i}}}\n" for i, item in enumerate(items))
    formatted(f"profiles: {{p: []}}\n{mode}rules:{' []' if not items else ''}\n{lines}{HEAD}")


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from([MESSY, TIDY, COMPLETE]))
def test_a_comment_put_anywhere_is_kept_or_the_file_is_left_alone(
    seed: int, count: int, text: str
) -> None:
    chance = random.Random(seed)
    lines = text.rstrip("\n").split("\n")
    for number in range(count):
        at = chance.randrange(len(lines))
        if chance.random() < 0.5:
            lines.insert(at, " " * chance.randrange(8) + f"# note {number}")
        elif chance.random() < 0.8:
            lines[at] += f"  # tail {number}"
        else:
            lines.insert(at, "")
    changed = "\n".join(lines) + "\n"
    try:
        load_policy(changed.encode(), "f")
    except PolicyFileError:
        return
    try:
        formatted(changed)
    except FormatRefused:
        # only a comment between the lines of one text has no place of its own
        assert changed.count("|") > 0
