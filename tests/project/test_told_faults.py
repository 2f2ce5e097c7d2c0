"""No log record of ours carries a traceback, or an error that nobody expected.

Who prints it prints its text too. An error whose text is ours is told by it.
"""

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


def logs(node: ast.AST) -> bool:
    """Whether this is a call of a logger."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    on = ast.unparse(node.func.value)
    is_logger = on.split(".")[-1].strip("_") in {"log", "logger", "logging"} or "getLogger(" in on
    return is_logger and node.func.attr in LEVELS


def carries_an_error(node: ast.AST) -> bool:
    """Whether a call logs an error itself, or prints a traceback."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    if ast.unparse(node.func.value) == "traceback":
        return node.func.attr.startswith(("print_", "format_"))
    if not logs(node):
        return False
    return node.func.attr == "exception" or any(
        one.arg in ("exc_info", "stack_info") for one in node.keywords
    )


def tells_the_unexpected(handler: ast.AST) -> bool:
    """Whether what catches every error logs more of it than its type and its places."""
    if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
        return False
    if ast.unparse(handler.type or ast.Constant(None)) not in {"Exception", "BaseException"}:
        return False
    return any(
        holds(word, handler.name)
        for call in ast.walk(handler)
        if logs(call) and isinstance(call, ast.Call)
        for word in (*call.args, *(one.value for one in call.keywords))
    )


def holds(word: ast.AST, name: str) -> bool:
    """Whether a name stands in an expression, but for its fault and its type."""
    if isinstance(word, ast.Call) and ast.unparse(word.func) in {"fault_of", "type"}:
        return False
    if isinstance(word, ast.Name) and word.id == name:
        return True
    return any(holds(one, name) for one in ast.iter_child_nodes(word))


def test_no_record_carries_an_error_and_no_traceback_is_printed() -> None:
    found = [
        f"{file}:{node.lineno}"
        for file, tree in sources()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and carries_an_error(node))
        or (isinstance(node, ast.ExceptHandler) and tells_the_unexpected(node))
    ]
    assert found == [], "tell a fault by `palyra_fleet.logs.faults.fault_of`"


@pytest.mark.parametrize(
    "line",
    [
        "_log.exception('it failed')",
        "_log.error('it failed', exc_info=True)",
        "self._log.warning('it failed: %s', kind, exc_info=error)",
        "logging.getLogger().log(40, 'x') or logger.log(40, 'x', exc_info=error)",
        "logging.getLogger(__name__).error('it failed', exc_info=True)",
        "_log.error('it failed', stack_info=True)",
        "traceback.print_exc()",
        "lines = traceback.format_exception(error)",
    ],
)
def test_what_would_print_an_errors_text_is_found(line: str) -> None:
    assert any(carries_an_error(node) for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize(
    ("caught", "line", "is_found"),
    [
        ("Exception", "_log.error('it failed: %s', error)", True),
        ("BaseException", "_log.error(f'it failed: {error}')", True),
        ("Exception", "self._log.error('it failed', extra={'why': str(error)})", True),
        ("Exception", "_log.error('it failed: %s', type(error).__name__)", False),
        ("Exception", "_log.error('it failed: %s', fault_of(error))", False),
        ("SpoolUnavailable", "_log.error('it failed: %s', error)", False),
    ],
)
def test_of_an_error_that_nobody_expected_the_text_is_found(
    caught: str, line: str, is_found: bool
) -> None:
    tree = ast.parse(f"try:\n    go()\nexcept {caught} as error:\n    {line}")
    assert any(tells_the_unexpected(node) for node in ast.walk(tree)) is is_found


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
