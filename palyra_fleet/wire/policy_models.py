"""What the fleet and its proxies say to each other about egress policies, and what operators read.

The fleet knows no policies: it asks a proxy, and the proxy answers by the very tables that it
enforces (`PolicyPoll` → `PolicyQuestion` → `ProxyAnswer`). Each answer names the digest of the
policy it is about. All texts are for people, all sizes are bounded, and nothing is decided by any
of it. Lines and columns count from 1; times are Unix ms.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from palyra_fleet.wire.models import DigestSha256, Name, Ulid, UnixMs, WireModel
from palyra_fleet.wire.traffic_models import Count
from palyra_fleet.wire.view_models import AttestedFacts

MAX_PROBLEMS: Final = 50
MAX_CHANGES: Final = 100
MAX_FILES: Final = 32
MAX_PROFILES: Final = 64
MAX_REPLAYED: Final = 100
MAX_STEPS: Final = 200
MAX_RULES: Final = 1_000
MAX_NAMED: Final = 12
"""How many hosts, methods, paths or profiles of one rule are told."""
MAX_SENTENCE: Final = 1_000
MAX_PATH: Final = 300
MAX_POLL_MS: Final = 10_000

Sentence = Annotated[str, StringConstraints(max_length=MAX_SENTENCE)]
Path = Annotated[str, StringConstraints(max_length=MAX_PATH)]
Word = Annotated[str, StringConstraints(max_length=64)]
Method = Annotated[str, StringConstraints(min_length=1, max_length=32)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Address = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Few = Annotated[tuple[Path, ...], Field(max_length=MAX_NAMED)]
_PART: Final = "[A-Za-z0-9_-][A-Za-z0-9_.-]*"
FileName = Annotated[str, StringConstraints(pattern=f"^{_PART}(/{_PART})*$", max_length=200)]
"""Of a file in a bundle: relative and plain, as `include` takes it."""


class PolicyProblem(WireModel):
    """One thing that is wrong. Without a place where it is about no line of a file."""

    message: Sentence
    code: Word | None = None
    file: Path | None = None
    line: Count | None = None
    column: Count | None = None

    def __str__(self) -> str:
        where = "" if self.file is None else f"{self.file}:{self.line}:{self.column}: "
        return f"{where}{'' if self.code is None else f'{self.code}: '}{self.message}"


Problems = Annotated[tuple[PolicyProblem, ...], Field(max_length=MAX_PROBLEMS)]


class PolicyChange(WireModel):
    """One difference to another policy, and where its cause stands."""

    what: Sentence
    where: Path
    widens: bool


Changes = Annotated[tuple[PolicyChange, ...], Field(max_length=MAX_CHANGES)]


class PolicyStanding(WireModel):
    """The policy that a proxy has in force. `rules` counts deny rules, too. `problems` are why the
    files as they are now did not come into force; then the policy before them stays. `signed`: this
    proxy takes only policies that enough people approved."""

    policy_digest: DigestSha256
    name: Path
    mode: Word
    loaded_at_unix_ms: UnixMs
    rules: Count
    files: Annotated[tuple[Path, ...], Field(max_length=MAX_FILES)] = ()
    profiles: Annotated[tuple[Word, ...], Field(max_length=MAX_PROFILES)] = ()
    profiles_left_out: Count = 0
    problems: Problems = ()
    problems_left_out: Count = 0
    signed: bool = False


class PolicyPoll(WireModel):
    """A proxy says what it has in force, and waits for a question."""

    standing: PolicyStanding
    wait_ms: Annotated[int, Field(ge=0, le=MAX_POLL_MS)] = 0


class RequestDescribed(WireModel):
    """A request to judge. Without `resolved` the answer may end at "if its addresses pass"."""

    method: Method = "GET"
    url: Url
    facts: AttestedFacts = AttestedFacts()
    resolved: Annotated[tuple[Address, ...], Field(min_length=1, max_length=16)] | None = None


class AskExplain(WireModel):
    """How would this request be judged?"""

    kind: Literal["explain"] = "explain"
    profile: Word
    request: RequestDescribed


class Refused(WireModel):
    """Something that was refused, as evidence has it: `target` is a method and a URL."""

    profile: Word
    reason: Word
    target: Annotated[str, StringConstraints(max_length=600)]


class AskReplay(WireModel):
    """Would these be refused now?"""

    kind: Literal["replay"] = "replay"
    refused: Annotated[tuple[Refused, ...], Field(max_length=MAX_REPLAYED)]


class PolicyText(WireModel):
    """One file of a bundle. The body's bound is the bundle's."""

    name: FileName
    text: str


def _names_each_once(files: tuple[PolicyText, ...]) -> tuple[PolicyText, ...]:
    if len({one.name for one in files}) != len(files):
        raise ValueError("a file is given twice")
    return files


Bundle = Annotated[
    tuple[PolicyText, ...],
    Field(min_length=1, max_length=MAX_FILES),
    AfterValidator(_names_each_once),
]
"""The first file is the outermost."""


class AskCheck(WireModel):
    """Is this a policy, and what would it change? The first file is the outermost."""

    kind: Literal["check"] = "check"
    files: Bundle


class AskRules(WireModel):
    """Which rules are in force, from the one with this number on?"""

    kind: Literal["rules"] = "rules"
    start: Count = 0


Ask = Annotated[AskExplain | AskReplay | AskCheck | AskRules, Field(discriminator="kind")]


class PolicyQuestion(WireModel):
    question_id: Ulid
    ask: Ask


class PolicyQuestions(WireModel):
    """What a poll answers: a question, or none when the wait is over."""

    items: Annotated[tuple[PolicyQuestion, ...], Field(max_length=1)] = ()


class ExplainStep(WireModel):
    name: Word
    finding: Sentence


class Explained(WireModel):
    """`effect` and `reason` are None where the addresses decide; `where` is file and line of the
    rule that decided or came nearest."""

    kind: Literal["explain"] = "explain"
    allowed: bool
    effect: Word | None = None
    reason: Word | None = None
    rule_id: Word | None = None
    where: Path | None = None
    owner: Path | None = None
    steps: Annotated[tuple[ExplainStep, ...], Field(max_length=MAX_STEPS)] = ()


class Replayed(WireModel):
    """How one that was refused would be judged now. `finding` is the reason, or why there is no
    answer; the rule and its place are there where one decides."""

    again: Literal["refused", "allowed", "unknown"]
    finding: Sentence
    rule_id: Word | None = None
    where: Path | None = None


class ReplayedAll(WireModel):
    """In the order in which they were asked."""

    kind: Literal["replay"] = "replay"
    found: Annotated[tuple[Replayed, ...], Field(max_length=MAX_REPLAYED)]


class Checked(WireModel):
    """`good`: these files would come into force, as far as texts tell. `changes` are told against
    the policy in force, None where the files are no policy."""

    kind: Literal["check"] = "check"
    good: bool
    checked_digest: DigestSha256 | None = None
    problems: Problems = ()
    problems_left_out: Count = 0
    warnings: Problems = ()
    warnings_left_out: Count = 0
    changes: Changes | None = None
    changes_left_out: Count = 0


class RuleInForce(WireModel):
    """One rule as a person looks for it; `where` is file and line. Of long lists the beginning is
    told, and how many there are."""

    kind: Literal["allow", "deny"]
    rule_id: Word
    hosts: Few
    hosts_in_all: Count
    methods: Few = ()
    paths: Few = ()
    paths_in_all: Count = 0
    profiles: Few = ()
    profiles_in_all: Count = 0
    where: Path
    owner: Path | None = None
    until_unix_ms: UnixMs | None = None
    observes: bool = False


class RulesTold(WireModel):
    """A part of the rules; the next begins at `following`, None for the end. With the first part
    come the changes against the policy before, None where there was none since the start."""

    kind: Literal["rules"] = "rules"
    standing: PolicyStanding
    rules: Annotated[tuple[RuleInForce, ...], Field(max_length=MAX_RULES)]
    following: Count | None = None
    changes: Changes | None = None
    changes_left_out: Count = 0


Answer = Annotated[Explained | ReplayedAll | Checked | RulesTold, Field(discriminator="kind")]


class ProxyAnswer(WireModel):
    """What a proxy answers to a question, by the policy with this digest."""

    question_id: Ulid
    policy_digest: DigestSha256
    answer: Answer


class ProxyPolicy(WireModel):
    """What is known of one proxy's policy. `heard`: `fresh` answers questions; `silent` did, and
    `standing` is what it said last; `never` has said nothing since the fleet started.
    `expected_digest` is the policy that receipts must name for a lease, as the proxy's beat says;
    `as_expected`, whether the policy it tells about is that one."""

    proxy_id: Name
    heard: Literal["fresh", "silent", "never"]
    heard_at_unix_ms: UnixMs | None = None
    expected_digest: str | None = None
    as_expected: bool = False
    standing: PolicyStanding | None = None


class ProxyRules(WireModel):
    """All that one proxy has in force. `rules_left_out` are those beyond the bound."""

    proxy_id: Name
    standing: PolicyStanding
    rules: tuple[RuleInForce, ...]
    rules_left_out: Count = 0
    changes: Changes | None = None
    changes_left_out: Count = 0


class ExplainRequest(RequestDescribed):
    """Asks how a request would be judged: of a `profile`, with `facts`; or of a worker, as its live
    lease and its evidence have it. `proxy_id` says who judges; without it the worker's proxy, or
    any, where all have one policy."""

    proxy_id: Name | None = None
    profile: Word | None = None
    worker_id: Ulid | None = None

    @model_validator(mode="after")
    def _of_one(self) -> Self:
        if (self.profile is None) == (self.worker_id is None):
            raise ValueError("expected either profile or worker_id")
        if self.worker_id is not None and self.facts != AttestedFacts():
            raise ValueError("a worker's facts are known")
        return self


class ExplainAnswer(WireModel):
    """`policy_digest` is the policy that explained, of the proxy that answered."""

    proxy_id: Name
    policy_digest: DigestSha256
    profile: str
    explained: Explained


class CheckRequest(WireModel):
    """Asks whether these files are a policy. `proxy_id` says with whose policy it is compared;
    without it any, where all have one policy."""

    proxy_id: Name | None = None
    files: Bundle


class CheckAnswer(WireModel):
    """`policy_digest` is the policy in force that the files were compared with."""

    proxy_id: Name
    policy_digest: DigestSha256
    checked: Checked
