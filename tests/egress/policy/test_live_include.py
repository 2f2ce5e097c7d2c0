"""Mirror of policy/live.py for policies of several files."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_egress.policy import load
from palyra_egress.policy.live import PolicyFile
from tests.egress.policy.test_include import BASE, OUTER, TEAM, three, write


def started(path: Path) -> PolicyFile:
    live = PolicyFile(path)
    assert live.poll() is not None
    assert live.poll() is None and live.problem is None
    return live


def _edit(base: Path) -> None:
    base.write_text(BASE.replace("packages.example", "mirror.example"))


def _replace(base: Path) -> None:
    draft = base.with_name("draft")
    _edit(draft)
    draft.replace(base)


def _swap_link(base: Path) -> None:
    _edit(base.with_name("two.yaml"))
    base.with_name("link").symlink_to("two.yaml")
    base.with_name("link").replace(base)


@pytest.mark.parametrize("change", [_edit, _replace, _swap_link])
def test_a_changed_included_file_is_a_new_policy(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    live = started(three(tmp_path))
    change(tmp_path / "base.yaml")
    policy = live.poll()
    assert policy is not None and live.problem is None
    assert [host.text for host in policy.spec.rules[0].hosts] == ["mirror.example"]


def test_a_swapped_directory_is_a_change(tmp_path: Path) -> None:
    """As a mounted ConfigMap is updated: all names lead through one link."""
    for version, text in (("v1", BASE), ("v2", BASE.replace("packages.example", "m.example"))):
        three(tmp_path / version, base=text)
    (tmp_path / "data").symlink_to("v1")
    for name in ("outer.yaml", "base.yaml", "team"):
        (tmp_path / name).symlink_to(f"data/{name}")
    live = started(tmp_path / "outer.yaml")
    (tmp_path / "fresh").symlink_to("v2")
    (tmp_path / "fresh").replace(tmp_path / "data")
    policy = live.poll()
    assert policy is not None
    assert [host.text for host in policy.spec.rules[0].hosts] == ["m.example"]


def test_a_bad_or_missing_included_file_keeps_the_last_good_policy(tmp_path: Path) -> None:
    live = started(three(tmp_path))
    good, base = live.policy, tmp_path / "base.yaml"
    base.write_text(BASE.replace("hosts", "host", 1))
    assert live.poll() is None and live.policy is good
    assert live.problem is not None and f"{base}:5:20: unknown_key" in live.problem
    base.unlink()
    assert live.poll() is None and live.policy is good
    assert "unreadable" in live.problem
    base.write_text(BASE)
    assert live.poll() is None and live.problem is None and live.policy is good


def test_a_file_that_is_added_or_left_out_is_a_change(tmp_path: Path) -> None:
    path = three(tmp_path)
    live = started(path)
    outer = OUTER.replace("[base.yaml,", "[base.yaml, more.yaml,")
    write(tmp_path, outer=outer)
    assert live.poll() is None and live.problem is not None and "more.yaml" in live.problem
    write(tmp_path, more=TEAM.replace("api", "more").replace("tests", "# tests").split("#")[0])
    added = live.poll()
    assert added is not None and len(added.spec.files) == 4
    write(tmp_path, outer=OUTER)
    left = live.poll()
    assert left is not None and len(left.spec.files) == 3
    write(tmp_path, more="now of no interest")
    assert live.poll() is None and live.problem is None


def test_a_half_read_set_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = three(tmp_path)
    live, real = PolicyFile(path), load._read_real

    def replaced_behind(place: Path) -> bytes:
        source = real(place)
        if place.name == "rules.yaml":
            _edit(tmp_path / "base.yaml")  # read already
        return source

    with monkeypatch.context() as patch:
        patch.setattr(load, "_read_real", replaced_behind)
        assert live.poll() is None and live.policy is None
    policy = live.poll()
    assert policy is not None
    assert [host.text for host in policy.spec.rules[0].hosts] == ["mirror.example"]


def test_an_included_file_that_nobody_had_a_descriptor_for_is_read_at_the_next_poll(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file itself has changed once, before; nothing shows when it can be read."""
    live = started(three(tmp_path))
    _edit(tmp_path / "base.yaml")

    def exhausted(_real: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(load, "_read_real", exhausted)
        assert live.poll() is None and "Too many open files" in (live.problem or "")
        assert live.poll() is None and "Too many open files" in (live.problem or "")
    assert live.poll() is not None and live.problem is None
