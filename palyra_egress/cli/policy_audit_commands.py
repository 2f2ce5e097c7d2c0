"""`policy replay`, `suggest` and `promote`: a policy held against recorded traffic."""

import argparse
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from palyra_egress.audit.chain import AuditFields, ChainBroken
from palyra_egress.audit.reading import entries
from palyra_egress.cli.audit_commands import chain_trouble, reading_trouble
from palyra_egress.cli.policy_answers import (
    ANSWER_IS_NO,
    DONE,
    YOURS_TO_FIX,
    fail,
    put,
    put_json,
    put_lines,
    read_named,
    say,
    write_whole,
)
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.load import load_files, read_files_at_rest
from palyra_egress.policy.promotion import NothingToPromote, Promotion, promote
from palyra_egress.policy.replay import Replay, ReplayGroup
from palyra_egress.policy.replay import replay as replay_entries
from palyra_egress.policy.suggest import as_yaml
from palyra_egress.policy.suggest import suggest as suggest_rules


def _entries(file: str) -> Iterator[AuditFields]:
    """The whole log, its chain checked: traffic that nobody can vouch for decides nothing."""
    try:
        yield from entries(Path(file))
    except ChainBroken as broken:
        raise chain_trouble(broken) from broken
    except OSError as error:
        raise reading_trouble(error) from error


def _left_out[Why: StrEnum](counts: Mapping[Why, int]) -> list[str]:
    return [f"  {count} {why.value}" for why, count in sorted(counts.items())]


def _replay_lines(found: Replay, limit: int) -> list[str]:
    def told(group: ReplayGroup, count: int) -> str:
        word = "BREAKS" if group.breaks else "opens" if group.opens else "changes"
        rule = "" if group.after.rule_id is None else f"  [{group.after.rule_id}]"
        change = f"{group.before} → {group.after}"
        return f"  {word:<8} {count:>6} x {group.profile}: {group.target}  {change}{rule}"

    lines = [told(group, count) for group, count in found.groups[:limit]]
    if len(found.groups) > limit:
        lines.append(f"  … and {len(found.groups) - limit} more groups (--limit)")
    changed = sum(count for _, count in found.groups)
    lines.append(f"{changed} change, {found.same} stay the same, {found.broken} would break")
    if found.not_judged:
        lines += ["not judged again:", *_left_out(found.not_judged)]
    return lines


def replay(args: argparse.Namespace) -> int:
    """`policy replay`: what of the recorded traffic a policy would change."""
    try:
        policy = read_named(args.policy)
    except PolicyFileError as error:
        return fail(args.output, error)
    found = replay_entries(_entries(args.audit), policy, args.profile)
    if args.output == "json":
        put_json(
            {
                "same": found.same,
                "broken": found.broken,
                "not_judged": {why.name.lower(): n for why, n in found.not_judged.items()},
                "groups": [
                    {
                        "profile": group.profile,
                        "target": group.target,
                        "before": str(group.before),
                        "after": str(group.after),
                        "rule": group.after.rule_id,
                        "line": group.after.line,
                        "breaks": group.breaks,
                        "opens": group.opens,
                        "count": count,
                    }
                    for group, count in found.groups
                ],
            }
        )
    else:
        put_lines(_replay_lines(found, args.limit))
        say("queries are not recorded and no rule reads them; rates and strikes are not replayed")
    return ANSWER_IS_NO if args.fail_on_change and found.broken else DONE


def suggest(args: argparse.Namespace) -> int:
    """`policy suggest`: the least rules for what was refused; nothing is written."""
    try:
        policy = read_named(args.policy)
    except PolicyFileError as error:
        return fail("text", error)
    found = suggest_rules(_entries(args.audit), policy, args.profile)
    taken = [rule.rule_id for rule in policy.spec.rules]
    put_lines(as_yaml(found, [*taken, *(deny.rule_id for deny in policy.spec.deny)]))
    if found.still_allowed:
        say(f"{found.still_allowed} recorded requests are allowed by {args.policy} as it is")
    if found.left_out:
        say("\n".join(["nothing is suggested for:", *_left_out(found.left_out)]))
    return DONE


def _promotion_lines(found: Promotion) -> list[str]:
    lines = [
        f"  {count:>6} x {item.profile}: {item.target}  {item.reason.short}"
        for item, count in found.unexplained
    ]
    if not found.evidence:
        return ["not promoted: the audit log has no verdict for a profile of this policy"]
    if found.unexplained:
        return [
            "not promoted: these passed only because they were observed; nothing explains them",
            *lines,
            "explain each: a rule that allows it, a deny rule, or a test about such a request",
        ]
    return []


def promote_file(args: argparse.Namespace) -> int:
    """`policy promote`: from observing to enforcing, once every would-deny is explained."""
    try:
        files = read_files_at_rest(Path(args.file))
        load_files(files)
        before = tuple(files.sources)
        found = promote(before, args.file, _entries(args.audit), args.rule)
    except PolicyFileError as error:
        return fail("text", error)
    except NothingToPromote as nothing:
        say(str(nothing))
        return YOURS_TO_FIX
    if not found.may_be_promoted:
        put_lines(_promotion_lines(found))
        return ANSWER_IS_NO
    words = f"{found.evidence} recorded requests, {found.explained} would-denies explained"
    changed = [new for old, new in zip(before, found.sources, strict=True) if new != old]
    for name, text in changed:
        path = Path(args.file) if not name else Path(args.file).parent / name
        if args.write:
            write_whole(path, text)
        if name:
            word = "changed" if args.write else "would change"
            say(f"{path}: {word}, for every policy that includes it")
    if args.write:
        put(f"{args.file}: promoted ({words})")
    else:
        put(f"{args.file}: may be promoted ({words}); --write does it")
    return DONE
