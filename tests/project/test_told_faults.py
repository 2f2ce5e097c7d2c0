"""No log record of ours carries an error or a traceback: who prints it prints its text too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("palyra_egress", "palyra_fleet", "addons")
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def carries_an_error(node: ast.AST) -> bool:
    """Whether a call logs an error itself, or prints a traceback."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    on = ast.unparse(node.func.value)
    if on == "traceback":
        return node.func.attr.startswith(("print_", "format_"))
    is_logger = on.split(".")[-1].strip("_") in {"log", "logger", "logging"}
    if not is_logger or node.func.attr not in LEVELS:
        return False
    return node.func.attr == "exception" or any(one.arg == "exc_info" for one in node.keywords)


def test_no_record_carries_an_error_and_no_traceback_is_printed() -> None:
    found = [
        f"{file}:{node.lineno}"
        for file, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and carries_an_error(node)
    ]
    assert found == [], "tell a fault by `palyra_fleet.logs.faults.fault_of`"


@pytest.mark.parametrize(
    "line",
    [
        "_log.exception('it failed')",
        "_log.error('it failed', exc_info=True)",
        "self._log.warning('it failed: %s', kind, exc_info=error)",
        "logging.getLogger().log(40, 'x') or logger.log(40, 'x', exc_info=error)",
        "traceback.print_exc()",
        "lines = traceback.format_exception(error)",
    ],
)
def test_what_would_print_an_errors_text_is_found(line: str) -> None:
    assert any(carries_an_error(node) for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "_log.error('it failed: %s', fault_of(error))",
        "future.exception()",
        "places = traceback.extract_tb(trace)",
    ],
)
def test_what_prints_no_text_is_not(line: str) -> None:
    assert not any(carries_an_error(node) for node in ast.walk(ast.parse(line)))
