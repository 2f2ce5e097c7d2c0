"""One question about the policy in force, answered. Pure but for a folder that a check takes."""

from typing import assert_never

from palyra_egress.questions.bundle import checked
from palyra_egress.questions.judged import explained, replayed
from palyra_egress.questions.rules import rules_from
from palyra_egress.questions.standing import Loaded
from palyra_fleet.wire.policy_models import (
    Answer,
    AskCheck,
    AskExplain,
    AskReplay,
    AskRules,
    PolicyQuestion,
    ProxyAnswer,
    ReplayedAll,
)


def answer_to(loaded: Loaded, question: PolicyQuestion, now_unix_ms: int) -> ProxyAnswer:
    """By one policy from beginning to end, whose digest the answer names."""
    return ProxyAnswer(
        question_id=question.question_id,
        policy_digest=loaded.policy.digest,
        answer=_answer(loaded, question, now_unix_ms),
    )


def _answer(loaded: Loaded, question: PolicyQuestion, now_unix_ms: int) -> Answer:
    match question.ask:
        case AskExplain() as asked:
            return explained(loaded.policy, asked, now_unix_ms)
        case AskReplay(refused=refused):
            found = tuple(replayed(loaded.policy, one, now_unix_ms) for one in refused)
            return ReplayedAll(found=found)
        case AskCheck() as asked:
            return checked(loaded.policy, asked, now_unix_ms)
        case AskRules(start=start):
            return rules_from(loaded, start)
        case _:
            assert_never(question.ask)
