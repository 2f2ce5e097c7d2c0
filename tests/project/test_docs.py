"""The documents against the tree: links lead somewhere, named tests exist, packages are explained.

A test is named in a document as `tests/folder/test_file.py` or with `::test_name` after it.
"""

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.project.documents import anchors, blocks, inline, links

NAMED_PATH = re.compile(r"[a-z_]+/[\w./-]*\w/?(?:::\w+)?")
RUN_BY = dict.fromkeys(
    (
        "docs/tutorial.md",
        "docs/how-to/back-up-and-restore.md",
        "docs/how-to/change-a-policy.md",
        "docs/how-to/investigate-a-quarantine.md",
        "docs/how-to/join-a-node.md",
        "docs/how-to/join-a-second-proxy.md",
        "docs/how-to/rotate-the-ca.md",
        "docs/how-to/run-a-pool-of-waiting-workers.md",
    ),
    "tests/e2e/test_tutorial.py",
)
"""Pages whose commands a test runs, block by block."""
NOT_RUN = {
    "README.md": "tests/e2e/test_demo.py, tests/e2e/test_run.py and CI run these commands",
    "docs/attestation.md": "needs settings and keys of a real attestor",
    "docs/ca.md": "changes the trust of the machine",
    "docs/channels.md": "needs other accounts and networks",
    "docs/credentials.md": "asks for secrets at a prompt, and needs a secret store elsewhere",
    "docs/deployment.md": "needs root, a container engine or a cluster",
    "docs/doctor.md": "tests/e2e/test_doctor.py runs these commands",
    "docs/doors.md": "needs firewall rules of the machine",
    "docs/fleet-state.md": "stops and restores a fleet; tests/fleet/store does so",
    "docs/operators.md": "needs workers and releases to name, and does not end; tests/golden and "
    "tests/fleet/cli run the commands, if not with each flag; nothing runs curl",
    "docs/policy-approvals.md": "needs several people with keys",
    "docs/reference/cli.md": "writes into the shell's own folders",
    "docs/remote-fleet.md": "needs two machines; tests/e2e/test_other_machines.py plays them",
    "docs/signals.md": "needs a collector, and a fleet to ask",
    "policies/README.md": "needs files of one's own; tests/egress/policy runs each",
}
"""Pages whose commands no test runs as they stand, each with the reason. tests/project/
test_snippets.py reads the blocks of every page with the parser that a program would use."""
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


def test_every_relative_link_leads_to_a_file_and_a_heading(
    repository: Path, documents: tuple[Path, ...]
) -> None:
    broken = []
    for document in documents:
        for line, link in links(document):
            if "://" in link or link.startswith("mailto:"):
                continue
            name, _, anchor = link.partition("#")
            target = document.parent / name if name else document
            is_there = target.exists() and (
                not anchor or target.suffix != ".md" or anchor in anchors(target)
            )
            if not is_there:
                broken.append(f"{document.relative_to(repository)}:{line}: {link}")
    assert broken == []


def test_every_file_that_a_document_names_exists(
    repository: Path, documents: tuple[Path, ...]
) -> None:
    """A path in a code span that begins with a folder of this repository. The record of changes
    and of what an attacker tried name what was there then."""
    folders = {path.name for path in repository.iterdir() if path.is_dir()} - {"var", "out", "dist"}
    missing = [
        f"{document.relative_to(repository)}:{line}: {token.content}"
        for document in documents
        if document.name not in {"CHANGELOG.md", "security-review.md"}
        for line, token in inline(document)
        if token.type == "code_inline" and NAMED_PATH.fullmatch(token.content)
        if token.content.partition("/")[0] in folders
        if not (repository / token.content.partition("::")[0]).exists()
    ]
    assert missing == []


def test_every_command_in_a_document_is_run_or_says_why_not(
    repository: Path, documents: tuple[Path, ...]
) -> None:
    """Pages that a test runs, blocks with a comment `not run: …`, and pages with one reason for
    all of theirs."""
    silent = [
        block.place
        for document in documents
        if str(document.relative_to(repository)) not in {*RUN_BY, *NOT_RUN}
        for block in blocks(document)
        if block.language in {"sh", "console", "bash"} and not block.marker.startswith("not run: ")
    ]
    assert silent == []
    assert all((repository / page).exists() for page in (*RUN_BY, *NOT_RUN))
    assert all((repository / test).exists() for test in RUN_BY.values())


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


def test_the_readme_says_what_lies_in_every_room(
    repository: Path, tracked_files: tuple[Path, ...]
) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Where things lie\n")[2]
    named: set[str] = set()
    for row in re.findall(r"(?m)^\| (`palyra_[^|]+) \|", table):
        package = row[1:].partition("/")[0]
        named |= {f"{package}/{room.split('/')[-2]}" for room in re.findall(r"`([^`]+)`", row)}
    parts = [path.relative_to(repository).parts for path in tracked_files]
    rooms = {"/".join(one[:2]) for one in parts if one[0].startswith("palyra_") and len(one) > 2}
    assert named == rooms


def test_every_decision_has_a_number_of_its_own_and_a_row(repository: Path) -> None:
    folder = repository / "docs" / "decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    numbers = [name[:4] for name in records]
    assert numbers == sorted(set(numbers)), "two decisions share a number"
    table = (folder / "README.md").read_text(encoding="utf-8")
    for name in records:
        assert f"| [{name[:4]}]({name}) |" in table
        assert (folder / name).read_text(encoding="utf-8").startswith(f"# {name[:4]}")


def test_every_invariant_has_a_number_of_its_own(repository: Path) -> None:
    text = (repository / "docs" / "invariants.md").read_text()
    numbers = Counter(re.findall(r"(?m)^\| ([A-Z]\d+) \|", text))
    assert len(numbers) > 100
    assert [number for number, times in numbers.items() if times > 1] == []
