"""`palyra-fleet policy …`: what proxies have in force, and questions that they answer.

Explaining and checking end with 1 where the answer is no. Which proxy answered, by which policy, is
said on stderr for people and stands in the answer for programs.
"""

import os
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from palyra_fleet.cli.output import printable, put, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode, Trouble, reason_of
from palyra_fleet.client import OperatorClient
from palyra_fleet.wire.policy_models import (
    CheckAnswer,
    CheckRequest,
    ExplainAnswer,
    ExplainRequest,
    PolicyChange,
    PolicyText,
)


async def list_policies(arguments: Namespace, client: OperatorClient) -> ExitCode:
    found = await client.policies()
    show_many(found, arguments.output)
    if arguments.output == "table":
        for one in found:
            for problem in () if one.standing is None else one.standing.problems:
                say(f"{one.proxy_id}: the policy in force stays: {problem}")
    return ExitCode.DONE


async def show_rules(arguments: Namespace, client: OperatorClient) -> ExitCode:
    """The rules as a table; for programs, everything that is known."""
    found = await client.policy_rules(arguments.name)
    if arguments.output in {"json", "yaml"}:
        show_one(found, arguments.output)
        return ExitCode.DONE
    show_many(found.rules, arguments.output)
    if arguments.output == "table":
        _say_left_out("rules", found.rules_left_out)
        _say_changes("changed last: ", found.changes or (), found.changes_left_out)
    return ExitCode.DONE


async def explain(arguments: Namespace, client: OperatorClient) -> ExitCode:
    try:
        asked = ExplainRequest(
            proxy_id=arguments.proxy,
            profile=arguments.profile,
            worker_id=arguments.worker,
            method=arguments.method,
            url=arguments.request_url,
            resolved=None if arguments.resolved is None else tuple(arguments.resolved),
        )
    except ValidationError as error:
        raise _too_long("the request cannot be asked about", error) from error
    answer = await client.explain(asked)
    if arguments.output == "table":
        for step in answer.explained.steps:
            put(f"{printable(step.name):<10} {printable(step.finding)}")
        say(_by(answer))
    else:
        show_one(answer, arguments.output)
    return ExitCode.DONE if answer.explained.allowed else ExitCode.NO


async def check(arguments: Namespace, client: OperatorClient) -> ExitCode:
    files = _bundle(arguments.files)
    try:
        asked = CheckRequest(proxy_id=arguments.proxy, files=files)
    except ValidationError as error:
        raise _too_long("the files cannot be asked about", error) from error
    answer = await client.check_policy(asked)
    checked = answer.checked
    if arguments.output == "table":
        for problem in (*checked.problems, *checked.warnings):
            put(printable(problem))
        _say_left_out("problems", checked.problems_left_out)
        _say_left_out("warnings", checked.warnings_left_out)
        _say_changes("", checked.changes or (), checked.changes_left_out)
        said = "good" if checked.good else "NOT good"
        say(f"{arguments.files[0]}: {said}; {_by(answer)}")
    else:
        show_one(answer, arguments.output)
    return ExitCode.DONE if checked.good else ExitCode.NO


def _bundle(paths: list[Path]) -> tuple[PolicyText, ...]:
    """The files by the names that the outermost includes them by. Raises Trouble."""
    top = paths[0].parent
    try:
        return tuple(
            PolicyText(
                name=Path(os.path.relpath(path, top)).as_posix(), text=path.read_text("utf-8")
            )
            for path in paths
        )
    except (OSError, UnicodeDecodeError) as error:
        remedy = "name files of text that can be read"
        raise Trouble(
            ExitCode.YOURS, "the policy cannot be read", reason_of(error), remedy
        ) from error
    except ValidationError as error:
        raise _too_long("a file's name cannot be sent", error) from error


def _too_long(what: str, error: ValidationError) -> Trouble:
    places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
    remedy = "files lie beside or below the first, each once; URLs have up to 2000 characters"
    return Trouble(ExitCode.YOURS, what, f"it does not fit: {places or 'the request'}", remedy)


def _by(answer: ExplainAnswer | CheckAnswer) -> str:
    return f"by policy {answer.policy_digest} of {answer.proxy_id}"


def _say_changes(before: str, changes: Iterable[PolicyChange], left_out: int) -> None:
    for one in changes:
        word = "widens" if one.widens else "changes"
        say(f"{before}{word}: {one.what} [{one.where}]")
    _say_left_out("changes", left_out)


def _say_left_out(what: str, count: int) -> None:
    if count:
        say(f"and {count} more {what}")
