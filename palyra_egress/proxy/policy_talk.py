"""The proxy's side of questions about its policy: say what is in force, take one, answer it.

Everything goes out from here, so that a proxy needs no way in. One question at a time, in a thread,
or in a process of its own where the asker sent files to look at; a question that fails here costs
its asker an answer and nobody anything else. Before anything is said about a new policy, the fleet
hears by the beat that it is in force: it takes answers about that one only.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from palyra_egress.clock import now_unix_ms
from palyra_egress.proxy.fleet_link import FleetLink
from palyra_egress.questions.answering import answer_to
from palyra_egress.questions.check_process import checked_apart
from palyra_egress.questions.standing import Loaded, standing_of
from palyra_fleet.client.errors import FleetError
from palyra_fleet.wire.policy_models import AskCheck, PolicyQuestion, ProxyAnswer

POLL_MS: Final = 3_000
AGAIN_AFTER_S: Final = 1.0
WAITED_PART: Final = 0.5
"""Of `POLL_MS`: a fleet that says sooner that nothing is asked, as one that shuts down, is not
asked again at once."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class PolicyTalk:
    """`loaded` gives the policy in force, None before there is one."""

    link: FleetLink
    loaded: Callable[[], Loaded | None]
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the fleet has heard which policy is in force."""

    async def answer_for_ever(self) -> None:
        while True:
            if self.link.view_problem is not None or not await self.answer_one():
                await asyncio.sleep(AGAIN_AFTER_S)

    async def answer_one(self) -> bool:
        """Poll once, and answer what came; False where it is better to wait a moment."""
        loaded = self.loaded()
        if loaded is None:
            return False
        try:
            await self.link.say_policy()
            wait_ms = POLL_MS if self.heard.is_set() else 0
            began_s = asyncio.get_running_loop().time()
            question = await self.link.client.next_question(standing_of(loaded), wait_ms)
            self.heard.set()
            if question is None:
                waited_ms = (asyncio.get_running_loop().time() - began_s) * 1000
                return waited_ms >= wait_ms * WAITED_PART
            await self._answer(question)
        except FleetError as error:
            _log.debug("no question about the policy can be taken: %s", error)
            return False
        return True

    async def _answer(self, question: PolicyQuestion) -> None:
        loaded = self.loaded()
        if loaded is None:
            return
        (answer,) = await asyncio.gather(answered(loaded, question), return_exceptions=True)
        if not isinstance(answer, ProxyAnswer):
            _log.error("a question about the policy failed: %s", type(answer).__name__)
            return
        await self.link.say_policy()
        with contextlib.suppress(FleetError):  # nobody waits for it any more, or asks again
            await self.link.client.answer_question(answer)


async def answered(loaded: Loaded, question: PolicyQuestion) -> ProxyAnswer:
    """By the policy as it is now: in a thread, and what takes as long as its asker likes apart."""
    now, ask = now_unix_ms(), question.ask
    if not isinstance(ask, AskCheck):
        return await asyncio.to_thread(answer_to, loaded, question, now)
    return ProxyAnswer(
        question_id=question.question_id,
        policy_digest=loaded.policy.digest,
        answer=await checked_apart(loaded.policy, ask, now),
    )
