"""Whether files that somebody sent are a policy, and what they would change.

They are read as `palyra-egress policy check` reads files, from a private folder that is gone
afterwards, so that what `include` means stays in one place. Nothing of them is put in force, and no
secret, approval or certificate that they name is looked at. Times: Unix ms.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.load import load_policy_file
from palyra_egress.policy.policy_lint import lint
from palyra_egress.questions import told
from palyra_egress.questions.rules import changes_told
from palyra_fleet.wire.policy_models import (
    MAX_PROBLEMS,
    AskCheck,
    Checked,
    PolicyProblem,
    PolicyText,
)

_SHARE_BYTES = told.BUDGET_BYTES // 2


def checked(in_force: CompiledPolicy, asked: AskCheck, now_unix_ms: int) -> Checked:
    """Problems with their places, or warnings and the changes against what is in force."""
    try:
        with tempfile.TemporaryDirectory(prefix="palyra-check-") as made:
            folder = Path(made).resolve()
            return _in_folder(folder, in_force, asked, now_unix_ms)
    except OSError as error:
        what = f"the files cannot be checked here: {error.strerror or type(error).__name__}"
        return Checked(good=False, problems=(PolicyProblem(message=what),))


def _in_folder(
    folder: Path, in_force: CompiledPolicy, asked: AskCheck, now_unix_ms: int
) -> Checked:
    _write(folder, asked.files)
    try:
        policy = load_policy_file(folder / asked.files[0].name)
    except PolicyFileError as error:
        problems, left_out = _told(folder, map(told.problem_of, error.problems))
        return Checked(good=False, problems=problems, problems_left_out=left_out)
    findings = (one for one in lint(policy, now_unix_ms) if one.counts)
    warnings, warnings_left_out = _told(folder, map(told.problem_of, findings))
    changes, changes_left_out, _ = changes_told(in_force, policy, _SHARE_BYTES)
    return Checked(
        good=True,
        checked_digest=policy.digest,
        warnings=warnings,
        warnings_left_out=warnings_left_out,
        changes=tuple(
            one.model_copy(update={"where": _plain(folder, one.where)}) for one in changes
        ),
        changes_left_out=changes_left_out,
    )


def _write(folder: Path, files: Iterable[PolicyText]) -> None:
    for one in files:
        path = folder / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.text.encode())


def _told(folder: Path, problems: Iterable[PolicyProblem]) -> tuple[tuple[PolicyProblem, ...], int]:
    every = [
        one.model_copy(
            update={
                "file": None if one.file is None else _plain(folder, one.file),
                "message": _plain(folder, one.message),
            }
        )
        for one in problems
    ]
    shown, _ = told.fitting(every, MAX_PROBLEMS, _SHARE_BYTES)
    return shown, len(every) - len(shown)


def _plain(folder: Path, text: str) -> str:
    """Names as they were sent, without where they lay for a moment."""
    return text.replace(f"{folder}/", "")
