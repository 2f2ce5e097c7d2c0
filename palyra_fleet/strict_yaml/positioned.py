"""A file of YAML as plain values for pydantic, with the place of each value and key by its path.

`document.py` says what is refused. A path is what pydantic calls the location of an error: the keys
and numbers that lead from the root to a value.
"""

from dataclasses import dataclass, field

from palyra_fleet.strict_yaml.document import Mistake, Node, Position, Scalar, Sequence, read_yaml

type Path = tuple[str | int, ...]
type Value = str | int | bool | list["Value"] | dict[str, "Value"] | None


@dataclass(slots=True)
class Positioned:
    """A read file. With mistakes the value is not to be used."""

    value: Value = None
    places: dict[Path, Position] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    def near(self, path: Path) -> Position:
        """Where this stands, or the closest thing around it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, Position())


def read_positioned(source: bytes, *, max_bytes: int, what: str) -> Positioned:
    """One file's bytes; `what` says what an empty one should hold. Never raises."""
    document = read_yaml(source, max_bytes=max_bytes, what=what)
    found = Positioned(mistakes=document.mistakes)
    if document.root is not None:
        found.value = _value(document.root, (), found)
    return found


def _value(node: Node, path: Path, found: Positioned) -> Value:
    found.places[path] = node.position
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [_value(item, (*path, number), found) for number, item in enumerate(node.items)]
    values: dict[str, Value] = {}
    for name, (key, value) in node.entries.items():
        found.keys[*path, name] = key.position
        values[name] = _value(value, (*path, name), found)
    return values
