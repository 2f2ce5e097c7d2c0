"""Settings of the commands that serve: by file, then environment, then flags; the later one holds.

What can be set is what the command takes as flags, read from its parser, so there is one table. A
key is the flag's name with `_`; in the TOML file it stands in the table of its command
(`[serve]`, `[proxy.serve]`), in the environment behind the program's prefix with `__` between the
parts (`PALYRA_EGRESS_PROXY__SERVE__LISTEN`). Strict: an unknown key, a variable with the prefix
that nothing reads, a wrong type or a value that the flag would refuse stops the command and says
where and what was expected, without the value. A list replaces the list of an earlier layer; of
flags that exclude each other only those of the latest layer count.
"""

import argparse
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.nearest_word import did_you_mean
from palyra_fleet.settings.errors import line_of
from palyra_fleet.trusted_files import UntrustedFile, read_edited

MAX_FILE_BYTES: Final = 1024 * 1024
_NOT_SETTINGS: Final = frozenset({"help", "config"})
_TRUTH: Final = {"true": True, "false": False}
_SERVICE_LINK: Final = re.compile(
    r"PALYRA_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)?)"
)
"""What Kubernetes adds for a Service of that name (its documentation, "Discovering services")."""

type Verb = tuple[str, ...]
type Given = bool | str | list[str]


@dataclass(frozen=True, slots=True)
class Program:
    """A program's name, its prefix in the environment, the commands that take settings, and what
    else is read with that prefix, less the prefix."""

    name: str
    prefix: str
    verbs: tuple[Verb, ...]
    others: tuple[str, ...]

    @property
    def file_variable(self) -> str:
        return f"{self.prefix}_CONFIG"

    def variable(self, verb: Verb, key: str) -> str:
        return f"{self.prefix}_{'__'.join((*verb, key)).upper()}"

    @property
    def other_variables(self) -> tuple[str, ...]:
        """What has the prefix and is no setting; the image is named for docker compose."""
        return tuple(f"{self.prefix}_{name}" for name in self.others)


FLEET: Final = Program(
    "palyra-fleet", "PALYRA_FLEET", (("serve",),), ("CONFIG", "IMAGE", "TOKEN_FILE", "URL")
)
EGRESS: Final = Program(
    "palyra-egress", "PALYRA_EGRESS", (("up",), ("proxy", "serve")), ("CONFIG", "IMAGE")
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that was set, and where."""

    key: str
    value: Given
    origin: str


def add_config_argument(parser: argparse.ArgumentParser, program: Program) -> None:
    """Say that the command reads settings; `with_settings` has read them by then."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"settings, as TOML (default {program.file_variable}; docs/reference/settings.md)",
    )


def settings_page(programs: Iterable[tuple[Program, argparse.ArgumentParser]]) -> Iterator[str]:
    """What can be set, in Markdown: a table for each command."""
    for program, top in programs:
        for verb in program.verbs:
            name = " ".join((program.name, *verb))
            start = program.variable(verb, "")
            yield f"## `{name}`\n\nIn the file: `[{'.'.join(verb)}]`. Variables: `{start}KEY`.\n"
            yield "| key | type | default | meaning |\n|---|---|---|---|"
            for key, action in actions(parser_of(top, verb)).items():
                default = default_of(action)
                shown = "" if default in (None, [], "") else f"`{default}`"
                said = (action.help or "").replace("|", "\\|")
                yield f"| `{key}` | {_kind(action)} | {shown} | {said} |"
            yield ""


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "true or false"
    if action.choices is not None:
        return "one of " + ", ".join(f"`{choice}`" for choice in action.choices)
    return "list of texts" if isinstance(action, argparse._AppendAction) else "text"


def default_of(action: argparse.Action) -> bool | str | list[str] | None:
    """The default as it would be written in the file."""
    match action.default:
        case bool() | None:
            return action.default
        case list():
            return [str(one) for one in action.default]
        case float(number) if number.is_integer():
            return str(int(number))
        case (str(host), int(port)):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return str(action.default)


def parser_of(top: argparse.ArgumentParser, verb: Verb) -> argparse.ArgumentParser:
    """The parser of a command below `top`."""
    for word in verb:
        (below,) = [one for one in top._actions if isinstance(one, argparse._SubParsersAction)]
        top = below.choices[word]
    return top


def actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """What can be set, by key."""
    return {
        key_of(action): action
        for action in parser._actions
        if action.option_strings and key_of(action) not in _NOT_SETTINGS
    }


def key_of(action: argparse.Action) -> str:
    return action.option_strings[-1].removeprefix("--").replace("-", "_") or action.dest


def with_settings(
    program: Program,
    top: argparse.ArgumentParser,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> list[str]:
    """The arguments with what file and environment set put before the flags. Raises Trouble."""
    for verb in program.verbs:
        if tuple(arguments[: len(verb)]) == verb:
            flags = list(arguments[len(verb) :])
            if {"-h", "--help"} & set(flags):
                break
            check_variables(program, top, environment)
            parser = parser_of(top, verb)
            file = _file_of(program, flags, environment)
            found = settings(program, verb, parser, file, environment)
            return [*verb, *_as_flags(parser, found, flags), *flags]
    return list(arguments)


def check_variables(
    program: Program, top: argparse.ArgumentParser, environment: Mapping[str, str]
) -> None:
    """Whether all that has the program's prefix in the environment is read by something: what is
    not is a setting that was misspelt, and holds for nobody. Raises Trouble, without the value."""
    known = {
        program.variable(verb, key)
        for verb in program.verbs
        for key in actions(parser_of(top, verb))
    } | set(program.other_variables)
    for name in sorted(environment):
        if not name.startswith(f"{program.prefix}_") or name in known:
            continue
        if _SERVICE_LINK.fullmatch(name) is None:
            starts = (program.variable(verb, "") for verb in program.verbs)
            raise _mistake(
                f"{name}: there is no such setting; expected one that begins with"
                f" {' or '.join(starts)}, or {', '.join(program.other_variables)}"
                f"{did_you_mean(name, known)}"
            )


def settings(
    program: Program,
    verb: Verb,
    parser: argparse.ArgumentParser,
    file: Path | None,
    environment: Mapping[str, str],
) -> tuple[Setting, ...]:
    """What file and environment set for a command, each key once; `check_variables` has looked at
    the names in the environment. Raises Trouble."""
    known = actions(parser)
    by_file = {} if file is None else _of_file(program, verb, known, file)
    by_environment = _of_environment(program, verb, known, environment)
    taken = _exclusive(parser, by_environment)
    kept = {key: one for key, one in by_file.items() if key not in taken}
    return tuple({**kept, **by_environment}.values())


def _file_of(program: Program, flags: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--config")
    named = reader.parse_known_args(flags)[0].config or environment.get(program.file_variable)
    return Path(named) if named else None


def _of_file(
    program: Program, verb: Verb, known: Mapping[str, argparse.Action], file: Path
) -> dict[str, Setting]:
    try:
        content, _ = read_edited(file, MAX_FILE_BYTES)
        text = content.decode()
        tree = tomllib.loads(text)
    except UntrustedFile as error:
        raise _mistake(str(error)) from None
    except OSError as error:
        raise _mistake(f"{file}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _mistake(f"{file}: not TOML: {error}") from None
    _check_tables(program, tree, (), file, text)
    table: object = tree
    for word in verb:
        table = table.get(word, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        raise _mistake(f"{file}: [{'.'.join(verb)}]: expected a table")
    found: dict[str, Setting] = {}
    for key, value in table.items():
        where = f"{file}:{line_of(text, (*verb, key))}"
        said = f"{where}: {'.'.join((*verb, key))}"
        found[key] = Setting(key, _checked(known, key, _written(value, said), said), where)
    return found


def _check_tables(program: Program, table: object, above: Verb, file: Path, text: str) -> None:
    """Tables on the way to a command hold nothing else."""
    if above in program.verbs or not isinstance(table, dict):
        return
    expected = sorted({verb[len(above)] for verb in program.verbs if verb[: len(above)] == above})
    for key, below in table.items():
        if key not in expected or not isinstance(below, dict):
            place = f"{file}:{line_of(text, (*above, key))}: {'.'.join((*above, key))}"
            meant = "" if key in expected else did_you_mean(key, expected)
            raise _mistake(f"{place}: expected a table: {', '.join(expected)}{meant}")
        _check_tables(program, below, (*above, key), file, text)


def _of_environment(
    program: Program,
    verb: Verb,
    known: Mapping[str, argparse.Action],
    environment: Mapping[str, str],
) -> dict[str, Setting]:
    start = program.variable(verb, "")
    found: dict[str, Setting] = {}
    for name in sorted(environment):
        if name.startswith(start):
            key = name.removeprefix(start).lower()
            text = environment[name]
            value = _of_text(known.get(key), text)
            found[key] = Setting(key, _checked(known, key, value, name), f"environment {name}")
    return found


def _of_text(action: argparse.Action | None, text: str) -> Given:
    """What a variable says, by what its setting takes."""
    if isinstance(action, argparse._AppendAction):
        return text.split(",")
    return _TRUTH.get(text, text) if action is not None and action.nargs == 0 else text


def _written(value: object, where: str) -> Given:
    match value:
        case bool() | str():
            return value
        case int() | float():
            return str(value)
        case list() if all(isinstance(one, str) for one in value):
            return value
        case _:
            raise _mistake(f"{where}: expected a text, a number, true, false or a list of texts")


def _checked(known: Mapping[str, argparse.Action], key: str, value: Given, where: str) -> Given:
    """The value, if the flag would take it. Raises Trouble, without the value: what was meant for
    another setting may be a secret, and file and variable are named."""
    action = known.get(key)
    if action is None:
        raise _mistake(f"{where}: there is no such setting{did_you_mean(key, known)}")
    is_switch = action.nargs == 0
    is_list = isinstance(action, argparse._AppendAction)
    if is_switch != isinstance(value, bool):
        raise _mistake(f"{where}: expected {'true or false' if is_switch else 'a text'}")
    if is_list != isinstance(value, list):
        raise _mistake(f"{where}: expected {'a list of texts' if is_list else 'one text'}")
    for text in value if isinstance(value, list) else () if isinstance(value, bool) else (value,):
        _check_text(action, text, where)
    return value


def _check_text(action: argparse.Action, text: str, where: str) -> None:
    try:
        read = action.type(text) if callable(action.type) else text
    except argparse.ArgumentTypeError as error:
        raise _mistake(f"{where}: {error}") from None
    except (ValueError, TypeError):  # of the library, and may repeat the value
        raise _mistake(f"{where}: expected what `--help` says of it") from None
    if action.choices is not None and read not in action.choices:
        choices = [str(choice) for choice in action.choices]
        meant = did_you_mean(text, choices)
        raise _mistake(f"{where}: expected one of {', '.join(choices)}{meant}")


def _as_flags(
    parser: argparse.ArgumentParser, found: Iterable[Setting], flags: Sequence[str]
) -> Iterator[str]:
    """The settings as flags, without those that the given flags take the place of."""
    given = {
        key: action
        for key, action in actions(parser).items()
        if any(_names(flag, action) for flag in flags)
    }
    taken = _exclusive(parser, given) | given.keys()
    known = actions(parser)
    for setting in found:
        if setting.key in taken or setting.value is False:
            continue
        option = known[setting.key].option_strings[-1]
        values = setting.value if isinstance(setting.value, list) else [setting.value]
        yield from (option if value is True else f"{option}={value}" for value in values)


def _names(flag: str, action: argparse.Action) -> bool:
    """Whether a word of the command line is this flag, also cut short as argparse allows."""
    word = flag.partition("=")[0]
    return len(word) > 2 and any(option.startswith(word) for option in action.option_strings)


def _exclusive(parser: argparse.ArgumentParser, given: Iterable[str]) -> set[str]:
    """The keys that exclude one of these."""
    names = set(given)
    groups = [
        {key_of(action) for action in group._group_actions}
        for group in parser._mutually_exclusive_groups
    ]
    return set().union(*(group for group in groups if group & names))


def _mistake(why: str) -> Trouble:
    return Trouble(
        ExitCode.YOURS,
        "the settings are not usable",
        why,
        "correct it; `config validate` looks at all of it, docs/reference/settings.md lists it",
    )
