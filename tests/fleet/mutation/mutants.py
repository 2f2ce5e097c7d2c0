"""Change each guard of the ledger in turn, and say which change no test notices.

    python -m tests.fleet.mutation.mutants [MODULE ...]      (default: every module of the ledger)

A mutant is one change of one expression: a comparison turned or made strict, `and` for `or`, a
`not` left out, a condition that is always or never true. Each runs in a forked child, which imports
the changed module and plays the ledger's tests, the quick ones first; the first that fails kills
the mutant. `ACCEPTED` names survivors that change nothing anybody can see, each with its reason.
Our own, because existing tools start pytest anew for each mutant, which here costs more than the
tests. Ends with 1 if a survivor is not accepted.
"""

import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cryptography.hazmat.primitives.asymmetric.ed25519
import hypothesis.stateful
import pydantic
import pytest
import ulid

ROOT = Path(__file__).resolve().parents[3]
LEDGER = ROOT / "palyra_fleet" / "ledger"
NOT_DECIDING = {"__init__", "wire_views", "decision", "auditor", "restoring"}
TESTS = (
    "tests/fleet/ledger/test_ledger_commands.py",
    "tests/fleet/ledger/test_grants.py",
    "tests/fleet/ledger/test_leasing.py",
    "tests/fleet/ledger/test_admission.py",
    "tests/fleet/ledger/test_releasing.py",
    "tests/fleet/ledger/test_enrolment.py",
    "tests/fleet/ledger/test_ledger_corpus.py",
    "tests/fleet/ledger/test_deadlines.py",
    "tests/fleet/test_service_operators.py",
    "tests/fleet/test_service_leases.py",
    "tests/fleet/test_service_registration.py",
    "tests/fleet/test_clock_set_back.py",
)
WITHIN_S = 600
_PRELOADED = (cryptography, hypothesis, pydantic, ulid)

_FAILED_AT = "worker.failed_at_attestation_epoch"
_NEWER = "candidate.attestation_epoch <= confined.attestation_epoch"
_HOLDS = "now_unix_ms >= candidate.attested_until_unix_ms"
_ATTESTED_AFTER = "a quarantine drops the candidate, so one that is there was attested after it"
_ENDED = "(lease_id, fence) == (worker.last_lease_id, worker.last_fence)"
ACCEPTED: dict[str, str] = {
    f"leasing._current_lease: lease is None and {_ENDED} -> {_ENDED}": (
        "a live lease is the worker's last (invariant 2), and was returned two lines before"
    ),
    (
        f"releasing._grounds: candidate is None or {_NEWER} or {_HOLDS}"
        f" -> candidate is None or {_HOLDS}"
    ): _ATTESTED_AFTER,
    f"releasing._grounds: {_NEWER} -> {_NEWER.replace('<=', '<')}": _ATTESTED_AFTER,
    (
        f"admission.reverify: worker.proof.attestation_epoch <= {_FAILED_AT}"
        f" -> worker.proof.attestation_epoch < {_FAILED_AT}"
    ): "work fails only with a quarantine, whose release took newer evidence",
}
"""`module.function: text -> text` of a mutant, and why it may live."""

_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed module."""

    module: str
    function: str
    line: int
    was: str
    now: str
    tree: ast.Module

    @property
    def key(self) -> str:
        """Its name while lines come and go above it."""
        return f"{self.module}.{self.function}: {self.was} -> {self.now}"

    def __str__(self) -> str:
        return f"line {self.line} of {self.key}"


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    tree = ast.parse(path.read_text())
    functions = _functions(tree)
    for index, node in enumerate(ast.walk(tree)):
        for changed in _changes(node):
            mutated = copy.deepcopy(tree)
            target = list(ast.walk(mutated))[index]
            _replace(mutated, target, changed)
            ast.fix_missing_locations(mutated)
            was, now = ast.unparse(node), ast.unparse(changed)
            yield Mutant(
                path.stem,
                functions.get(node, "module"),
                getattr(node, "lineno", 0),
                was,
                now,
                mutated,
            )


def _functions(tree: ast.Module) -> dict[ast.AST, str]:
    """The innermost function of each node that is in one."""
    found: dict[ast.AST, str] = {}
    for outer in ast.walk(tree):  # from the outside in
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= dict.fromkeys(ast.walk(outer), outer.name)
    return found


def _changes(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left, [operator], rest):
            yield ast.Compare(left, [_TURNED[type(operator)]()], rest)
        case ast.BoolOp(operator, values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield ast.BoolOp(other, values)
            for left_out in range(len(values)):
                kept = values[:left_out] + values[left_out + 1 :]
                yield kept[0] if len(kept) == 1 else ast.BoolOp(operator, kept)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.Call(ast.Name("min" | "max") as name, arguments) if len(arguments) > 1:
            yield ast.Call(ast.Name("max" if name.id == "min" else "min"), arguments, [])
            for left_out in range(len(arguments)):
                kept = arguments[:left_out] + arguments[left_out + 1 :]
                yield kept[0] if len(kept) == 1 else ast.Call(name, kept, [])


def _replace(tree: ast.Module, target: ast.AST, changed: ast.expr) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, changed)
                return
            if isinstance(value, list) and target in value:
                value[value.index(target)] = changed
                return


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the changed module in place of the real one."""

    def __init__(self, mutant: Mutant) -> None:
        self._name, self._tree = f"palyra_fleet.ledger.{mutant.module}", mutant.tree

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        return importlib.machinery.ModuleSpec(name, self) if name == self._name else None

    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(self._tree, self._name, "exec"), module.__dict__)


def survives(mutant: Mutant) -> bool:
    """Do all tests pass on it? A child that hangs was noticed."""
    child = os.fork()
    if child == 0:
        code = 2
        with contextlib.suppress(BaseException):
            signal.alarm(WITHIN_S)
            code = _play(mutant)
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def _play(mutant: Mutant) -> int:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    sys.meta_path.insert(0, _Mutated(mutant))
    quick = pytest.main(
        ["-x", "-q", "-p", "no:randomly", "--assert=plain", *(str(ROOT / test) for test in TESTS)]
    )
    if quick != 0:
        return 1
    small_scope = importlib.import_module("tests.fleet.ledger.small_scope")
    for workers, depth, trust in ((1, 6, False), (2, 3, False), (1, 3, True)):
        scope = small_scope.Scope(workers, trust)
        scope.explore(depth, WITHIN_S)
        if scope.problems:
            return 1
    return 0


def main(modules: Sequence[str]) -> int:
    files = [path for path in sorted(LEDGER.glob("*.py")) if path.stem not in NOT_DECIDING]
    if modules:
        files = [path for path in files if path.stem in modules]
    everything = [mutant for path in files for mutant in mutants_of(path)]
    unchanged = Mutant("guards", "", 0, "", "", ast.parse((LEDGER / "guards.py").read_text()))
    if not survives(unchanged):
        print("the tests fail on the unchanged ledger; nothing can be said")
        return 2
    left = 0
    for number, mutant in enumerate(everything, start=1):
        if survives(mutant):
            reason = ACCEPTED.get(mutant.key)
            left += reason is None
            print(f"[{number}/{len(everything)}] survives: {mutant} ({reason})", flush=True)
    print(f"{len(everything)} mutants, {left} survivors that nobody accepted")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
