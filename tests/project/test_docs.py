"""The documents against the tree: links lead somewhere, named tests exist, packages are explained.

A test is named in a document as `tests/folder/test_file.py` or with `::test_name` after it.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")
NAMED_TEST = re.compile(r"`(?P<file>tests/[\w/.-]+\.py)(?:::(?P<test>\w+))?`")
REQUIREMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def imported_modules(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.fixture
def documents(tracked_files: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(path for path in tracked_files if path.suffix == ".md")


def test_every_relative_link_leads_to_a_file(repository: Path, documents: tuple[Path, ...]) -> None:
    broken = [
        f"{document.relative_to(repository)}: {link['target']}"
        for document in documents
        for link in LINK.finditer(document.read_text(encoding="utf-8"))
        if "://" not in link["target"] and not link["target"].startswith("#")
        if not (document.parent / link["target"].partition("#")[0]).exists()
    ]
    assert broken == []


def test_every_test_that_a_document_names_exists(
    repository: Path, documents: tuple[Path, ...]
) -> None:
    missing = []
    for document in documents:
        for named in NAMED_TEST.finditer(document.read_text(encoding="utf-8")):
            path = repository / named["file"]
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            if not path.exists() or (named["test"] and f"def {named['test']}(" not in text):
                missing.append(f"{document.name}: {named[0]}")
    assert missing == []


def test_every_direct_dependency_is_explained(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    declared = project["project"]["dependencies"] + project["build-system"]["requires"]
    for line in (repository / "requirements" / "dev.in").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            declared.append(line)
    names = {match[0] for entry in declared if (match := REQUIREMENT_NAME.match(entry))}
    explained = (repository / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert sorted(name for name in names if f"`{name}`" not in explained) == []


def test_every_package_that_the_code_imports_is_explained(
    repository: Path, tracked_files: tuple[Path, ...]
) -> None:
    imported = {
        name.partition(".")[0]
        for path in tracked_files
        if path.suffix == ".py" and path.relative_to(repository).parts[0].startswith("palyra_")
        for name in imported_modules(ast.parse(path.read_text(encoding="utf-8")))
    }
    foreign = imported - sys.stdlib_module_names - {"palyra_egress", "palyra_fleet"}
    distributions = packages_distributions()
    explained = (repository / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    assert (
        sorted(
            name
            for name in foreign
            if not any(
                f"`{package.lower()}`" in explained for package in distributions.get(name, ())
            )
        )
        == []
    )


def test_the_readme_names_every_target_of_the_first_minute(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    for command in ("make demo", "make up", "palyra-egress run -- ", "make test"):
        assert command in readme


def test_every_decision_has_a_number_of_its_own_and_a_row(repository: Path) -> None:
    folder = repository / "docs" / "decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    numbers = [name[:4] for name in records]
    assert numbers == sorted(set(numbers)), "two decisions share a number"
    table = (folder / "README.md").read_text(encoding="utf-8")
    for name in records:
        assert f"| [{name[:4]}]({name}) |" in table
        assert (folder / name).read_text(encoding="utf-8").startswith(f"# {name[:4]}")
