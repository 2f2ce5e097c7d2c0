"""What a mutant is: one function of the fleet with one expression of a guard changed.

A comparison made strict, lax or its opposite, one part of `and`, `or`, `min` or `max` left out, a
`not` left out, a condition that is always or never true. What would be noticed wherever another of
these is (`and` for `or`, the opposite of a whole condition) is not played.
Expressions outside of functions are not changed: they are constants, and guard nothing. Pure.
"""

import ast
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
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
    """A changed function: `function` of the module at `path` does `code` instead."""

    path: Path
    imported_as: str
    function: str
    line: int
    was: str
    now: str
    turn: int
    code: types.CodeType

    @property
    def key(self) -> str:
        """Its name while lines come and go above it. The same change elsewhere in the same function
        is told apart by its turn."""
        again = f" ({self.turn})" if self.turn > 1 else ""
        return f"{self.path.stem}.{self.function}: {self.was} -> {self.now}{again}"

    def __str__(self) -> str:
        return f"line {self.line} of {self.key}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an expression stands: a field of its parent, or one of a list in that field."""

    parent: ast.AST
    field: str
    index: int | None
    node: ast.expr
    condition: bool

    def put(self, node: ast.expr) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants_of(path: Path, root: Path = ROOT) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its functions. Modules are named from `root`."""
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    for name, function in _functions(ast.parse(path.read_text()), ""):
        seen: Counter[tuple[str, str]] = Counter()
        for place in [each for part in function.body for each in _places(part)]:
            was = ast.unparse(place.node)
            for changed in _changes(place):
                now = ast.unparse(changed)
                seen[was, now] += 1
                place.put(ast.copy_location(changed, place.node))
                code = _compiled(function)
                place.put(place.node)
                turn, line = seen[was, now], place.node.lineno
                yield Mutant(path, module, name, line, was, now, turn, code)


def _functions(tree: ast.AST, inside: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of the module and methods of its classes, by qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield inside + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{inside}{node.name}.")


def _places(parent: ast.AST) -> Iterator[_Place]:
    for name, value in ast.iter_fields(parent):
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, ast.expr):
                at = index if isinstance(value, list) else None
                yield _Place(parent, name, at, node, name in {"test", "guard", "ifs"})
            if isinstance(node, ast.AST):
                yield from _places(node)


def _changes(place: _Place) -> Iterator[ast.expr]:
    match place.node:
        case ast.Compare(left, operators, rest):
            for at, operator in enumerate(operators):
                if isinstance(operator, _ORDER) or not place.condition:
                    turned = [*operators[:at], _TURNED[type(operator)](), *operators[at + 1 :]]
                    yield ast.Compare(left, turned, rest)
        case ast.BoolOp(operator, values):
            for kept in _without_one(values):
                yield kept[0] if len(kept) == 1 else ast.BoolOp(operator, kept)
        case ast.UnaryOp(ast.Not(), operand) if not place.condition:
            yield operand
        case ast.Call(ast.Name("min" | "max") as function, arguments) if len(arguments) > 1:
            for kept in _without_one(arguments):
                yield kept[0] if len(kept) == 1 else ast.Call(function, kept, [])
    if place.condition:
        yield from _always(place.node)


def _always(condition: ast.expr) -> Iterator[ast.Constant]:
    """What no part that is left out says already."""
    operator = condition.op if isinstance(condition, ast.BoolOp) else None
    if not isinstance(operator, ast.And):
        yield ast.Constant(True)
    if not isinstance(operator, ast.Or):
        yield ast.Constant(False)


def _without_one(values: list[ast.expr]) -> Iterator[list[ast.expr]]:
    for left_out in range(len(values)):
        kept = values[:left_out] + values[left_out + 1 :]
        if not all(isinstance(value, ast.Starred) for value in kept):
            yield kept


def _compiled(function: ast.FunctionDef) -> types.CodeType:
    """The code of the function alone. What decorates it stays that of the real one."""
    alone = ast.Module([ast.fix_missing_locations(function)], [])
    inside = compile(alone, f"<mutant of {function.name}>", "exec").co_consts
    return next(
        one for one in inside if isinstance(one, types.CodeType) and one.co_name == function.name
    )
