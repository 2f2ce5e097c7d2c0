"""What may be in the tree: no path of a machine, no registry, no silent or overgrown module."""

import ast
import re
from pathlib import Path

import pytest

MAX_LINES = 450

# Written in pieces, so that this file does not break its own rule.
_HOMES = "|".join(("root", "work", "home"))
MACHINE_PATH = re.compile(rf"(?<![\w.}}])/(?:{_HOMES})/")
_REGISTRIES = (
    ("pypi", "org"),
    ("pypi.python", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("yarnpkg", "com"),
    ("crates", "io"),
    ("rubygems", "org"),
    ("proxy.golang", "org"),
    ("docker", "io"),
    ("ghcr", "io"),
    ("quay", "io"),
    ("debian", "org"),
)
REGISTRY_HOST = re.compile("|".join(rf"\b{re.escape('.'.join(host))}\b" for host in _REGISTRIES))


def lines_that_match(files: tuple[Path, ...], pattern: re.Pattern[str], root: Path) -> list[str]:
    found = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text
        found += [
            f"{path.relative_to(root)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if pattern.search(line)
        ]
    return found


@pytest.mark.parametrize(
    ("text", "is_machine_path"),
    [
        ("/" + "root/.config", True),
        ('"/' + 'work/main"', True),
        ("cd /" + "home/anna/project", True),
        ("https://api.example/" + "work/items", False),  # a URL's path
        ("~/" + "work", False),
        ("frame" + "work/", False),
    ],
)
def test_the_pattern_knows_a_machine_path(text: str, is_machine_path: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is is_machine_path


def test_no_tracked_file_names_a_path_of_a_machine(
    repository: Path, tracked_files: tuple[Path, ...]
) -> None:
    assert lines_that_match(tracked_files, MACHINE_PATH, repository) == []


def test_no_tracked_file_names_a_package_registry(
    repository: Path, tracked_files: tuple[Path, ...]
) -> None:
    assert lines_that_match(tracked_files, REGISTRY_HOST, repository) == []


def test_every_module_says_what_it_is(repository: Path, tracked_files: tuple[Path, ...]) -> None:
    packages = (repository / "palyra_egress", repository / "palyra_fleet")
    modules = [
        path
        for path in tracked_files
        if path.suffix == ".py" and any(path.is_relative_to(package) for package in packages)
    ]
    assert modules
    silent = [
        str(path.relative_to(repository))
        for path in modules
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_no_python_file_outgrows_its_room(
    repository: Path, tracked_files: tuple[Path, ...]
) -> None:
    lengths = {
        str(path.relative_to(repository)): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked_files
        if path.suffix == ".py"
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
