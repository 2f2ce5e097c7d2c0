"""Mirror of policy/compose.py and of the reading of sets in policy/load.py."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from palyra_egress.policy import load
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.load import load_policy, load_policy_file
from tests.egress.policy.policy_text import ask, short

BASE = """\
version: 1
name: base
limits: {max_response_bytes: 1MiB}
rules:
  - {id: packages, hosts: [packages.example]}
deny:
  - {id: paste, hosts: [.paste.example], reason: exfiltration}
violations: {quarantine: [metadata_target]}
"""
TEAM = """\
version: 1
name: team
rules:
  - {id: api, hosts: [api.example, x.paste.example]}
violations: {quarantine: [private_target]}
tests:
  - {profile: p, request: GET https://api.example/, expect: allow}
"""
OUTER = """\
version: 1
name: service
include: [base.yaml, team/rules.yaml]
profiles: {p: [packages, api]}
"""


def write(tmp_path: Path, **files: str) -> Path:
    """Writes `a__b` as a/b.yaml; answers with the path of `outer.yaml`."""
    for name, text in files.items():
        path = tmp_path / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return tmp_path / "outer.yaml"


def three(tmp_path: Path, **others: str) -> Path:
    return write(tmp_path, **{"outer": OUTER, "base": BASE, "team__rules": TEAM, **others})


def fragment(include: str = "", more: str = "") -> str:
    return f"version: 1\nname: f\ninclude: [{include}]\n{more}"


def refused(path: Path) -> list[str]:
    """The problems, with names relative to the outermost file's directory."""
    with pytest.raises(PolicyFileError) as error:
        load_policy_file(path)
    return [str(problem).replace(f"{path.parent}/", "") for problem in error.value.problems]


def names(policy: CompiledPolicy, path: Path) -> list[str]:
    return [str(Path(file).relative_to(path.parent)) for file in policy.spec.files]


def test_files_are_united_depth_first_and_the_outermost_last(tmp_path: Path) -> None:
    path = three(
        tmp_path,
        outer=OUTER.replace("team/rules.yaml", "team/all.yaml"),
        team__all=fragment("rules.yaml, more.yaml"),
        team__more=fragment(),
    )
    policy = load_policy_file(path)
    files = ["base.yaml", "team/rules.yaml", "team/more.yaml", "team/all.yaml", "outer.yaml"]
    assert names(policy, path) == files
    assert policy.name == "service" and policy.file == str(path)
    assert sorted(policy.rules) == ["api", "packages"]
    assert {reason.short for reason in policy.penalties} == {"metadata_target", "private_target"}
    assert policy.rules["api"].limits.max_response_bytes == 1 << 20


def test_a_verdict_points_to_the_file_where_the_rule_is(tmp_path: Path) -> None:
    path = three(tmp_path)
    policy = load_policy_file(path)
    allowed = ask(policy, "GET https://api.example/")
    assert (allowed.policy_file, allowed.line) == (str(tmp_path / "team/rules.yaml"), 4)
    denied = ask(policy, "GET https://y.paste.example/")
    assert (denied.policy_file, denied.line) == (str(tmp_path / "base.yaml"), 7)
    unknown = ask(policy, "GET https://other.example/")
    assert (unknown.policy_file, unknown.line) == (str(path), None)


@pytest.mark.parametrize("order", ["base.yaml, team/rules.yaml", "team/rules.yaml, base.yaml"])
def test_deny_beats_allow_whatever_file_it_stands_in(order: str, tmp_path: Path) -> None:
    outer = OUTER.replace("base.yaml, team/rules.yaml", order)
    policy = load_policy_file(three(tmp_path, outer=outer))
    assert short(ask(policy, "GET https://x.paste.example/")) == "host_denied"


def test_an_id_that_two_files_define_is_told_with_both_places(tmp_path: Path) -> None:
    team = TEAM.replace("id: api", "id: paste") + "profiles: {p: []}\n"
    assert refused(three(tmp_path, team__rules=team)) == [
        "team/rules.yaml:4:5: duplicate_id: the id 'paste' is taken by base.yaml:7:5; "
        "expected each id once",
        "outer.yaml:4:12: duplicate_id: the profile 'p' is taken by team/rules.yaml:8:12; "
        "expected each profile in one file",
        "outer.yaml:4:26: unknown_rule: no rule has the id 'api'; expected the id of a rule of "
        "this policy",
    ]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("mode: enforce", "mode"),
        ("tls: {default: inspect}", "tls.default"),
        ("limits: {max_request_bytes: 1MiB}", "limits.max_request_bytes"),
        ("limits: {max_response_bytes: 1MiB}", "limits.max_response_bytes"),
        ("limits: {requests_per_minute: 5}", "limits.requests_per_minute"),
        (
            "violations: {strike: {on: [host_denied], limit: 5, window: 10m}}",
            "violations.strike",
        ),
    ],
)
def test_a_setting_stands_in_one_file_only(setting: str, name: str, tmp_path: Path) -> None:
    """Also where both files say the same."""
    once = write(tmp_path, outer=fragment("a.yaml, b.yaml"), a=fragment("", setting), b=fragment())
    load_policy_file(once)
    both = write(tmp_path, b=fragment("", f"# another line\n{setting}")).parent / "outer.yaml"
    told = refused(both)
    assert len(told) == 1
    assert (
        told[0].startswith("b.yaml:5:")
        and f"set_twice: {name!r} is set here and at a.yaml:4:" in (told[0])
    )


def test_settings_of_different_names_may_stand_in_different_files(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        outer=fragment("a.yaml, b.yaml", "mode: observe\n"),
        a=fragment("", "limits: {requests_per_minute: 5}\n"),
        b=fragment("", "limits: {max_request_bytes: 0}\n"),
    )
    policy = load_policy_file(path)
    limits = policy.spec.limits
    assert policy.observes and limits.requests_per_minute == 5
    assert limits.max_request_bytes == 0, "a limit of nothing is a limit"


def test_only_the_outermost_file_may_observe(tmp_path: Path) -> None:
    path = write(tmp_path, outer=fragment("a.yaml"), a=fragment("", "mode: observe\n"))
    assert [line.split(";")[0] for line in refused(path)] == [
        "a.yaml:4:7: bad_include: an included file says that the policy only observes"
    ]


def test_a_cycle_is_told_by_its_way(tmp_path: Path) -> None:
    path = write(tmp_path, outer=fragment("a.yaml"), a=fragment("b.yaml"), b=fragment("a.yaml"))
    told = [line.replace(f"{tmp_path}/", "") for line in refused(path)]
    assert told == ["b.yaml:3:11: include_cycle: a.yaml → b.yaml → a.yaml"]
    write(tmp_path, outer=fragment("outer.yaml"))
    assert refused(path)[0].endswith("include_cycle: outer.yaml → outer.yaml")


def test_a_file_that_two_files_include_is_read_once(tmp_path: Path) -> None:
    outer = OUTER.replace("[base.yaml,", "[other.yaml, base.yaml,")
    path = three(tmp_path, outer=outer, other=fragment("base.yaml"))
    assert names(load_policy_file(path), path) == [
        "base.yaml",
        "other.yaml",
        "team/rules.yaml",
        "outer.yaml",
    ]


def test_four_levels_are_read_and_five_are_refused(tmp_path: Path) -> None:
    levels = {f"f{i}": fragment(f"f{i + 1}.yaml") for i in range(1, 4)}
    path = write(tmp_path, outer=fragment("f1.yaml"), **levels, f4=fragment())
    assert len(load_policy_file(path).spec.files) == 5
    write(tmp_path, f4=fragment("f5.yaml"), f5=fragment())
    assert refused(path) == [
        "f4.yaml:3:11: bad_include: f5.yaml is included more than 4 levels deep"
    ]


def test_thirty_two_files_are_read_and_one_more_is_refused(tmp_path: Path) -> None:
    many = [f"f{i}" for i in range(31)]
    files = {name: fragment() for name in [*many, "last"]}
    listed = ", ".join(f"{name}.yaml" for name in many)
    path = write(tmp_path, outer=fragment(listed), **files)
    assert len(load_policy_file(path).spec.files) == 32
    write(tmp_path, outer=fragment(f"{listed}, last.yaml"))
    assert [line.partition("bad_include: ")[2] for line in refused(path)] == [
        "last.yaml: a policy has at most 32 files"
    ]


def test_the_sizes_of_all_files_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = three(tmp_path)
    total = sum(file.stat().st_size for file in tmp_path.rglob("*.yaml"))
    monkeypatch.setattr(load, "MAX_TOTAL_BYTES", total)
    load_policy_file(path)
    (tmp_path / "base.yaml").write_text(f"{BASE}#{'x' * len(OUTER)}\n")
    assert "the files have more than" in refused(path)[0]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/base.yaml",
        "../base.yaml",
        "team/../../base.yaml",
        "team/../base.yaml",
        "./base.yaml",
        "team//rules.yaml",
        "team/",
        "..",
        '""',
        '"*.yaml"',
        '"team/[a-z].yaml"',
        '"team/?.yaml"',
        "https://policies.example/base.yaml",
        "file:///etc/base.yaml",
        '"C:\\\\base.yaml"',
        '"..\\\\base.yaml"',
        '"~/base.yaml"',
        '"base.yaml\\0"',
        '"base.yaml\\n"',
        "base.json",
        ".hidden.yaml",
        "a/b/c/d/e/f/g/h/i/j.yaml",
        "7",
        "{file: base.yaml}",
    ],
)
def test_names_that_lead_elsewhere_are_refused_before_anything_is_opened(
    name: str, tmp_path: Path
) -> None:
    path = three(tmp_path / "inner", base=BASE)
    (tmp_path / "base.yaml").write_text(fragment())
    path.write_text(f"version: 1\nname: x\ninclude:\n  - {name}\n")
    told = refused(path)
    assert len(told) == 1 and told[0].startswith("outer.yaml:4:5: "), told
    assert "bad_include" in told[0] or "wrong_type" in told[0]


def test_a_symlink_may_point_inside_the_tree_and_not_outside(tmp_path: Path) -> None:
    path = write(tmp_path / "inner", outer=fragment("a.yaml"), team__real=fragment())
    link = path.parent / "a.yaml"
    link.symlink_to("team/real.yaml")
    assert names(load_policy_file(path), path) == ["a.yaml", "outer.yaml"]
    link.unlink()
    outside = write(tmp_path, secret=fragment()).with_name("secret.yaml")
    link.symlink_to(outside)
    out = "leads out of the directory of the file that includes it"
    assert refused(path) == [f"outer.yaml:3:11: bad_include: a.yaml {out}"]
    link.unlink()
    (path.parent / "door").symlink_to(tmp_path)
    path.write_text(fragment("door/secret.yaml"))
    assert refused(path) == [f"outer.yaml:3:11: bad_include: door/secret.yaml {out}"]


def test_an_included_file_cannot_reach_above_its_own_directory(tmp_path: Path) -> None:
    """What lies inside the outermost directory, and above the file that includes it, is outside."""
    path = write(tmp_path, outer=fragment("team/a.yaml"), team__a=fragment("up.yaml"))
    write(tmp_path, base=fragment())
    (tmp_path / "team/up.yaml").symlink_to("../base.yaml")
    assert "leads out of the directory" in refused(path)[0]


def test_only_regular_files_are_included(tmp_path: Path) -> None:
    path = write(tmp_path, outer=fragment("pipe.yaml"))
    os.mkfifo(tmp_path / "pipe.yaml")
    assert refused(path) == ["outer.yaml:3:11: bad_include: pipe.yaml is no regular file"]
    (tmp_path / "pipe.yaml").unlink()
    (tmp_path / "pipe.yaml").mkdir()
    assert refused(path) == ["outer.yaml:3:11: bad_include: pipe.yaml is no regular file"]


@pytest.mark.parametrize("is_loop", [False, True])
def test_a_missing_file_is_told_where_it_is_named(is_loop: bool, tmp_path: Path) -> None:
    path = three(tmp_path)
    (tmp_path / "base.yaml").unlink()
    if is_loop:
        (tmp_path / "base.yaml").symlink_to("base.yaml")
    told = refused(path)
    assert len(told) == 1, "what would be in it is not told as missing too"
    assert told[0].startswith("outer.yaml:3:11: unreadable: base.yaml: ")


def test_a_file_named_twice_is_told(tmp_path: Path) -> None:
    path = three(tmp_path, outer=OUTER.replace("team/rules.yaml", "base.yaml"))
    assert "outer.yaml:3:22: bad_include: 'base.yaml' is included twice" in refused(path)[0]


def test_a_misspelt_key_of_an_included_file_is_told_in_that_file(tmp_path: Path) -> None:
    told = refused(three(tmp_path, team__rules=TEAM.replace("hosts:", "host:")))
    assert any(
        line.startswith("team/rules.yaml:4:15: unknown_key: ")
        and line.endswith("did you mean 'hosts'?")
        for line in told
    )
    assert refused(three(tmp_path, team__rules="- a\n"))[0].startswith("team/rules.yaml:1:1: ")


def test_a_reference_and_a_failing_test_are_told_in_their_own_file(tmp_path: Path) -> None:
    told = refused(three(tmp_path, team__rules=TEAM.replace("profile: p", "profile: q")))
    assert told[0].startswith("team/rules.yaml:7:5: unknown_profile: ") and len(told) == 1
    team = TEAM.replace(
        "https://api.example/, expect: allow", "https://packages.example/, expect: deny"
    )
    told = refused(three(tmp_path, team__rules=team))
    assert told == [
        "team/rules.yaml:7:5: test_failed: GET https://packages.example/ gives allow "
        "(by the rule on line 5 of base.yaml); expected deny"
    ]


def test_a_text_without_a_directory_cannot_include() -> None:
    with pytest.raises(
        PolicyFileError, match=r"f:3:11: bad_include: 'base.yaml' is included"
    ) as no:
        load_policy(OUTER.encode(), "f")
    assert "no directory" in str(no.value) and "unknown_rule" not in str(no.value)
    assert load_policy(fragment().encode(), "f").name == "f", "an empty list needs none"


def test_the_digest_covers_every_file_its_name_and_the_order(tmp_path: Path) -> None:
    path = three(tmp_path)
    digests = {load_policy_file(path).digest}
    for change in (
        {"base": f"{BASE}# x\n"},
        {"base": BASE, "outer": f"{OUTER}# x\n"},
        {"outer": OUTER.replace("base.yaml, team/rules.yaml", "team/rules.yaml, base.yaml")},
        {"outer": OUTER.replace("base.yaml", "kase.yaml"), "kase": BASE},
        # bytes that move from one file to the next
        {"outer": OUTER, "base": f"{BASE}# ", "team__rules": TEAM},
    ):
        digests.add(load_policy_file(write(tmp_path, **change)).digest)
    assert len(digests) == 6
    source = fragment()
    alone = write(tmp_path, outer=source)
    assert load_policy_file(alone).digest == sha256(source.encode()).hexdigest()


def test_the_digest_does_not_depend_on_where_the_directory_is(tmp_path: Path) -> None:
    one, two = three(tmp_path / "1"), three(tmp_path / "2")
    assert load_policy_file(one).digest == load_policy_file(two).digest


def test_files_that_never_rest_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = three(tmp_path)
    real = load._read_real

    def disturbed(place: Path) -> bytes:
        source = real(place)
        place.with_name("draft").write_bytes(source)
        place.with_name("draft").replace(place)
        return source

    monkeypatch.setattr(load, "_read_real", disturbed)
    assert refused(path) == [
        "outer.yaml:1:1: unreadable: the files change while they are read; expected files at rest"
    ]
