"""The language of policy files as one table: sections, their keys in order, and what each holds.

The reader refuses keys without a row here and asks for the required ones, `policy fmt` writes keys
in this order, and the JSON Schema for editors is made from it. `later` are words of the language
that this version refuses because it does not enforce them yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from palyra_egress.credentials.binding import EXPECTED_REF
from palyra_egress.credentials.header_names import EXPECTED_HEADER
from palyra_egress.policy.schema import LANGUAGE_VERSION, NOT_SUPPORTED_YET
from palyra_egress.policy.values import EXPECTED_ID, EXPECTED_TIME


class Holds(StrEnum):
    """What one value is."""

    VERSION = "version"
    IDENTIFIER = "identifier"
    TEXT = "text"
    BOOLEAN = "boolean"
    SIZE = "size"
    RATE = "rate"
    STRIKES = "strikes"
    DURATION = "duration"
    TIME = "time"
    MODE = "mode"
    TLS_MODE = "tls_mode"
    HOST = "host"
    PORT = "port"
    SCHEME = "scheme"
    METHOD = "method"
    PATH = "path"
    PRIVATE_RANGE = "private_range"
    ACKNOWLEDGEMENT = "acknowledgement"
    REASON = "reason"
    RULE_ID = "rule_id"
    ADDRESS = "address"
    TEST_REQUEST = "test_request"
    TEST_ANSWER = "test_answer"
    LINT_CODE = "lint_code"
    INCLUDE = "include"
    CREDENTIAL_HEADER = "credential_header"
    REFERENCE = "reference"
    CREDENTIAL_FORMAT = "credential_format"
    BASIC_USER = "basic_user"
    PLACEHOLDER = "placeholder"
    DIGEST = "digest"
    CAPABILITY = "capability"
    BINDING_LEVEL = "binding_level"
    LEAST_BINDING_LEVEL = "least_binding_level"
    CANARY_VALUE = "canary_value"


class Number(StrEnum):
    """How many there are under a key: one, a list, or a mapping from free names to sections, where
    a list may stand for the section's first key."""

    ONE = "one"
    LIST = "list"
    BY_NAME = "by_name"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `required` are the words told when it is missing; None means it may be."""

    name: str
    holds: "Holds | Section"
    doc: str
    number: Number = Number.ONE
    required: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping of the file. `what` is how problems call it."""

    what: str
    keys: tuple[Key, ...]
    later: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(key.name for key in self.keys)

    def key(self, name: str) -> Key | None:
        return next((key for key in self.keys if key.name == name), None)

    def homes(self, name: str) -> tuple[str, ...]:
        """The sections in and below this one that have such a key."""
        found = [self.what] if name in self.names else []
        for key in self.keys:
            if isinstance(key.holds, Section):
                found += key.holds.homes(name)
        return tuple(dict.fromkeys(found))


_LIST, _BY_NAME = Number.LIST, Number.BY_NAME

_TLS: Final = Section(
    "'tls'", (Key("default", Holds.TLS_MODE, "what holds for rules that say nothing else"),)
)


def _limits(whose: str) -> Section:
    """The same limits for a file, a profile and a rule."""
    return Section(
        "'limits'",
        (
            Key("max_request_bytes", Holds.SIZE, "the largest request body"),
            Key("max_response_bytes", Holds.SIZE, "the largest response body; 0 allows nothing"),
            Key("requests_per_minute", Holds.RATE, f"requests of one worker {whose}"),
            Key("bytes_per_hour", Holds.SIZE, f"bytes of one worker {whose}, both ways"),
            Key("request_bytes_per_hour", Holds.SIZE, f"bytes that one worker sends {whose}"),
            Key("response_bytes_per_hour", Holds.SIZE, f"bytes that one worker gets {whose}"),
        ),
        NOT_SUPPORTED_YET["limits"],
    )


FILE_LIMITS: Final = _limits("in all")
PROFILE_LIMITS: Final = _limits("in this profile")
RULE_LIMITS: Final = _limits("under this rule")
FACTS: Final = Section(
    "'facts'",
    (
        Key("binding_level", Holds.BINDING_LEVEL, "how well the way through the proxy is known"),
        Key("image_digest", Holds.DIGEST, "the image that runs"),
        Key("build_digest", Holds.DIGEST, "the build it came from"),
        Key("artifact_digest", Holds.DIGEST, "the program that runs"),
        Key("capabilities", Holds.CAPABILITY, "what the worker is trusted to do", _LIST),
    ),
)
REQUIRES: Final = Section(
    "'requires'",
    (
        Key("binding_level", Holds.LEAST_BINDING_LEVEL, "at least this"),
        Key("image_digests", Holds.DIGEST, "one of these images", _LIST),
        Key("build_digests", Holds.DIGEST, "one of these builds", _LIST),
        Key("artifact_digests", Holds.DIGEST, "one of these programs", _LIST),
        Key("capabilities", Holds.CAPABILITY, "all of these", _LIST),
    ),
)
PROFILE: Final = Section(
    "a profile",
    (
        Key("rules", Holds.RULE_ID, "which rules a lease gets", _LIST, "a list of rule ids"),
        Key("limits", PROFILE_LIMITS, "ceilings of this profile, whatever its rules say"),
        Key("requires", REQUIRES, "what the fleet must have verified about the worker"),
    ),
)
CREDENTIAL: Final = Section(
    "a credential",
    (
        Key("header", Holds.CREDENTIAL_HEADER, "which header", required=EXPECTED_HEADER),
        Key("secret", Holds.REFERENCE, "the secret's name", required=EXPECTED_REF),
        Key("format", Holds.CREDENTIAL_FORMAT, 'such as "Bearer {secret}"; else the secret alone'),
        Key("basic_user", Holds.BASIC_USER, "HTTP Basic as this user; the format is the password"),
        Key("placeholder", Holds.PLACEHOLDER, "what workers send where the secret is to stand"),
    ),
)
UPSTREAM_TLS: Final = Section(
    "'upstream_tls'",
    (
        Key("roots", Holds.IDENTIFIER, "verified by these of --upstream-roots and no others"),
        Key("client_certificate", Holds.IDENTIFIER, "shown to servers that ask for one"),
    ),
)
RULE: Final = Section(
    "a rule",
    (
        Key("id", Holds.IDENTIFIER, "unique; audit entries name it", required=EXPECTED_ID),
        Key(
            "hosts",
            Holds.HOST,
            "a.example that name, *.example below it, .example both, an IP address, a CIDR",
            _LIST,
            required="a list of host patterns",
        ),
        Key("schemes", Holds.SCHEME, "without it https", _LIST),
        Key("ports", Holds.PORT, "without it 443, and 80 where the rule says http", _LIST),
        Key("methods", Holds.METHOD, "without it GET and HEAD", _LIST),
        Key("paths", Holds.PATH, "* one segment, ** at the end any depth", _LIST),
        Key("encoded_slash", Holds.BOOLEAN, "accept %2F inside a segment"),
        Key("private", Holds.PRIVATE_RANGE, "the private ranges this rule may reach", _LIST),
        Key("tls", Holds.TLS_MODE, "judge each request in a tunnel, or pass the tunnel on unseen"),
        Key("missing_sni", Holds.BOOLEAN, "accept a TLS handshake that names no server"),
        Key("ech", Holds.BOOLEAN, "accept an encrypted ClientHello in a tunnel that is passed on"),
        Key("credentials", CREDENTIAL, "secrets that allowed requests carry", _LIST),
        Key("upstream_tls", UPSTREAM_TLS, "how its servers are verified, and what they are shown"),
        Key("until", Holds.TIME, "then the rule is gone"),
        Key("observe", Holds.BOOLEAN, "refusals for these hosts pass and are reported"),
        Key("acknowledge", Holds.ACKNOWLEDGEMENT, "dangers that are meant", _LIST),
        Key("owner", Holds.TEXT, "who answers for the rule"),
        Key("reason", Holds.TEXT, "why the rule is there, best with a ticket"),
        Key("limits", RULE_LIMITS, "budgets of this rule"),
        Key("websocket", Holds.BOOLEAN, "requests may go on as WebSockets"),
        Key("log_query", Holds.BOOLEAN, "audit entries of what the rule allows hold the query"),
    ),
    NOT_SUPPORTED_YET["rule"],
)
DENY: Final = Section(
    "a deny rule",
    (
        Key("id", Holds.IDENTIFIER, "unique; audit entries name it", required=EXPECTED_ID),
        Key(
            "hosts",
            Holds.HOST,
            "refused in every profile; CIDRs also refuse names that resolve into them",
            _LIST,
            required="a list of host patterns",
        ),
        Key("reason", Holds.TEXT, "why"),
    ),
    NOT_SUPPORTED_YET["rule"],
)
STRIKE: Final = Section(
    "'strike'",
    (
        Key("on", Holds.REASON, "reasons that count", _LIST, required="on, limit and window"),
        Key("limit", Holds.STRIKES, "how many quarantine", required="on, limit and window"),
        Key("window", Holds.DURATION, "within which time", required="on, limit and window"),
    ),
)
VIOLATIONS: Final = Section(
    "'violations'",
    (
        Key("quarantine", Holds.REASON, "reasons that quarantine the worker at once", _LIST),
        Key("strike", STRIKE, "reasons that quarantine the worker when they repeat"),
    ),
)
CANARY: Final = Section(
    "a canary",
    (
        Key("id", Holds.IDENTIFIER, "unique; audit entries name it", required=EXPECTED_ID),
        Key("value", Holds.CANARY_VALUE, "the decoy itself, where this file is no secret"),
        Key("secret", Holds.REFERENCE, "the name of the secret that is the decoy"),
        Key("owner", Holds.TEXT, "who is to hear of it"),
        Key("reason", Holds.TEXT, "where it is planted, and as what"),
    ),
)
EXPECTED_REQUEST: Final = "`METHOD https://host/path` or `CONNECT host:port`"
EXPECTED_ANSWER: Final = "`allow`, `deny [reason]` or `observe [reason]`"
TEST: Final = Section(
    "a test",
    (
        Key("profile", Holds.TEXT, "who asks", required="the name of a profile"),
        Key("request", Holds.TEST_REQUEST, "what is asked", required=EXPECTED_REQUEST),
        Key("facts", FACTS, "what is known about the worker; else nothing"),
        Key("resolved", Holds.ADDRESS, "the addresses of the name; else one public one", _LIST),
        Key("at", Holds.TIME, "when; else a moment before every `until`"),
        Key("expect", Holds.TEST_ANSWER, "what the answer must be", required=EXPECTED_ANSWER),
        Key("upstream_tls", UPSTREAM_TLS, "how an allowed request's server must be met"),
    ),
)
IGNORE: Final = Section(
    "an ignore",
    (
        Key("code", Holds.LINT_CODE, "the finding's code", required="the code of a finding"),
        Key("rule", Holds.RULE_ID, "only for this rule"),
        Key("profile", Holds.TEXT, "only for this profile"),
        Key("reason", Holds.TEXT, "why it is right to live with it", required="a reason"),
        Key("until", Holds.TIME, "then it is a finding again", required=EXPECTED_TIME),
    ),
)
LINT_SECTION: Final = Section(
    "'lint'", (Key("ignore", IGNORE, "findings somebody decided to live with", _LIST),)
)
POLICY: Final = Section(
    "a policy",
    (
        Key(
            "version",
            Holds.VERSION,
            "the version of this language",
            required=f"version: {LANGUAGE_VERSION}",
        ),
        Key("name", Holds.IDENTIFIER, "the policy's name", required=EXPECTED_ID),
        Key("include", Holds.INCLUDE, "files of this policy, read before this one", _LIST),
        Key("mode", Holds.MODE, "observe decides, reports what it would refuse, lets it pass"),
        Key("tls", _TLS, "how tunnels are carried"),
        Key("limits", FILE_LIMITS, "sizes where rule and profile set none; rates for each worker"),
        Key("rules", RULE, "what is allowed", _LIST),
        Key("deny", DENY, "what is refused in every profile, before every rule", _LIST),
        Key("violations", VIOLATIONS, "what a refusal costs the worker"),
        Key("canaries", CANARY, "decoys: sending one is a violation, to any host", _LIST),
        Key("profiles", PROFILE, "what a lease gets: a list of rules, or a mapping", _BY_NAME),
        Key("lint", LINT_SECTION, "what the linter leaves out"),
        Key("tests", TEST, "run whenever the file is loaded", _LIST),
    ),
    NOT_SUPPORTED_YET["top"],
)
