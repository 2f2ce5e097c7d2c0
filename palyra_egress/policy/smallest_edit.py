"""The smallest edit of a policy that would allow a refused request: proposed, tried, then told.

Candidates are made from the reason, the smallest first: one more word in the nearest rule, a rule
taken into the profile, a rule of its own. Each is applied to the policy in memory and the request
is judged again; only what really turns the refusal into an allowance is told, so no advice is a
guess. Nothing is told where no edit helps (the floor, what is malformed) or where only a larger one
would. What an edit opens besides is for `policy diff` to say. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from palyra_egress.destination.address_class import (
    AddressClass,
    AddressRange,
    classify,
    format_address,
    parse_range,
)
from palyra_egress.destination.hostpattern import parse_pattern
from palyra_egress.policy.compile import CompiledPolicy, compile_policy
from palyra_egress.policy.decide import decide
from palyra_egress.policy.nearest_rule import nearest_rule
from palyra_egress.policy.paths import PathPattern, parse_path_pattern, read_path
from palyra_egress.policy.schema import (
    DEFAULT_METHODS,
    KNOWN_METHODS,
    SCHEME_PORT,
    SERVICE_PORTS,
    PolicySpec,
    ProfileSpec,
    RuleSpec,
)
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, RequestKind
from palyra_egress.verdict import NO_LIMITS, TlsMode, Verdict
from palyra_fleet.strict_yaml.document import Position

STAND_IN_ADDRESS: Final = "203.0.114.1"
"""What an unresolved name is judged with: a public address that is nobody's."""
_NOBODY: Final = Position()


@dataclass(frozen=True, slots=True)
class Edit:
    """What to write, and where: the line of the rule, profile or deny rule that it changes."""

    text: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.text} ({self.file}:{self.line})"


type _Candidate = tuple[PolicySpec, Edit]


def smallest_edit(
    policy: CompiledPolicy,
    request: EgressRequest,
    verdict: Verdict,
    resolved: Sequence[str] | None,
    now_unix_ms: int,
) -> Edit | None:
    """The first candidate with which the request is allowed, or None."""
    addresses = [STAND_IN_ADDRESS] if resolved is None else list(resolved)
    for spec, edit in _Editor(policy, request, verdict, addresses).candidates():
        again = decide(compile_policy(spec, policy.digest), request, addresses, now_unix_ms)
        if again.allowed and again.would_deny is None:
            return edit
    return None


class _Editor:
    """Makes the candidates for one refusal."""

    def __init__(
        self,
        policy: CompiledPolicy,
        request: EgressRequest,
        verdict: Verdict,
        addresses: Sequence[str],
    ) -> None:
        self._policy = policy
        self._spec = policy.spec
        self._request = request
        self._verdict = verdict
        self._addresses = addresses
        self._profile = request.requester.profile

    def candidates(self) -> Iterator[_Candidate]:
        """The smallest first."""
        near = next((r for r in self._spec.rules if r.rule_id == self._verdict.rule_id), None)
        match self._verdict.reason:
            case Reason.HOST_NOT_ALLOWED:
                yield from self._for_host()
            case Reason.HOST_DENIED:
                yield from self._without_denial()
            case Reason.PROFILE_UNKNOWN:
                yield from self._new_profile()
            case Reason.PROFILE_REQUIREMENTS:
                yield from self._without_demands()
            case Reason.PRIVATE_TARGET | Reason.MIXED_ANSWER:
                for rule in self._spec.rules if near is None else (near,):
                    yield from self._with_private(rule)
                yield from self._new_rule()
            case _ if near is not None:
                yield from self._in_rule(near)
                yield from self._new_rule()
            case _:
                return

    def _in_rule(self, rule: RuleSpec) -> Iterator[_Candidate]:
        """One more word in the rule that came nearest."""
        asked = self._request
        schemes = list(dict.fromkeys(scheme for scheme, _ in rule.endpoints))
        ports = list(dict.fromkeys(port for _, port in rule.endpoints))
        match self._verdict.reason:
            case Reason.PORT_NOT_ALLOWED:
                opened = {(scheme, asked.port) for scheme in schemes}
                yield self._change(
                    rule,
                    f"write `ports: {_list([*ports, asked.port])}`",
                    endpoints=(*rule.endpoints, *sorted(opened)),
                )
            case Reason.SCHEME_NOT_ALLOWED:
                both = [*schemes, asked.scheme]
                usual = SCHEME_PORT[asked.scheme]
                text = f"write `schemes: {_list(both)}`"
                if asked.port != usual:
                    text += f" and `ports: {_list([*ports, asked.port])}`"
                yield self._change(
                    rule, text, endpoints=(*rule.endpoints, (asked.scheme, asked.port))
                )
            case Reason.METHOD_NOT_ALLOWED:
                methods = (*rule.methods, asked.method)
                yield self._change(rule, f"write `methods: {_list(methods)}`", methods=methods)
            case Reason.PATH_NOT_ALLOWED:
                form = read_path(asked.path)
                pattern = None if form is None else _path_pattern(form.form)
                if pattern is not None and rule.paths is not None:
                    yield self._change(
                        rule, f"add `{pattern.text}` to `paths`", paths=(*rule.paths, pattern)
                    )
            case Reason.UPGRADE_NOT_ALLOWED:
                yield self._change(rule, "write `websocket: true`", websocket=True)
            case Reason.PATH_MALFORMED:
                yield self._change(rule, "write `encoded_slash: true`", encoded_slash=True)
            case Reason.RULE_EXPIRED:
                yield self._change(rule, "give it a later `until`", until_unix_ms=None)
            case Reason.BUDGET_ZERO:
                yield self._change(rule, "raise the limit that is 0", limits=NO_LIMITS)
            case _:
                return

    def _for_host(self) -> Iterator[_Candidate]:
        near = nearest_rule(self._spec, self._profile, self._request.host)
        if near is not None and near.rule.rule_id not in self._own_rules():
            yield self._take_in(near.rule)
        elif near is not None:
            yield self._change(
                near.rule,
                f"add `{self._request.host}` to `hosts`",
                hosts=(*near.rule.hosts, parse_pattern(self._request.host)),
            )
        yield from self._new_rule()

    def _take_in(self, rule: RuleSpec) -> _Candidate:
        profile = self._profile_spec()
        if profile is None:
            raise LookupError(self._profile)
        taken = replace(profile, rule_ids=(*profile.rule_ids, (rule.rule_id, _NOBODY)))
        text = f"add `{rule.rule_id}` to the rules of profile {profile.name}"
        return self._with_profile(taken), self._at(text, profile)

    def _new_rule(self) -> Iterator[_Candidate]:
        """A rule for exactly this request, in the profile."""
        profile = self._profile_spec()
        if profile is None:
            return
        made = self._rule_of_its_own()
        if made is None:
            return
        rule, words = made
        grown = replace(self._spec, rules=(*self._spec.rules, rule))
        taken = replace(profile, rule_ids=(*profile.rule_ids, (rule.rule_id, _NOBODY)))
        text = f"a new rule `{words}`, taken into profile {profile.name}"
        yield self._with_profile(taken, grown), self._at(text, profile)

    def _rule_of_its_own(self) -> tuple[RuleSpec, str] | None:
        asked = self._request
        is_tunnel = self._policy.carriage.mode is TlsMode.TUNNEL
        methods: tuple[str, ...] = DEFAULT_METHODS
        paths: tuple[PathPattern, ...] | None = None
        words = [f"id: {self._fresh_id()}", f"hosts: [{_quoted(asked.host)}]"]
        if asked.scheme != "https":
            words.append(f"schemes: [{asked.scheme}]")
        if asked.port != SCHEME_PORT[asked.scheme]:
            words.append(f"ports: [{asked.port}]")
        if is_tunnel:
            methods = tuple(sorted(KNOWN_METHODS))
        elif asked.kind is RequestKind.REQUEST:
            form = read_path(asked.path)
            pattern = None if form is None else _path_pattern(form.form)
            if asked.method not in KNOWN_METHODS or pattern is None:
                return None
            methods, paths = (asked.method,), (pattern,)
            words += [f"methods: [{asked.method}]", f"paths: [{_quoted(pattern.text)}]"]
        if asked.websocket:
            words.append("websocket: true")
        private = self._private_ranges()
        if private:
            words.append(f"private: {_list(_range_text(one) for one in private)}")
        words += self._acknowledgements()
        rule = RuleSpec(
            rule_id=self._fresh_id(),
            position=_NOBODY,
            hosts=(parse_pattern(asked.host),),
            endpoints=((asked.scheme, asked.port),),
            methods=methods,
            paths=paths,
            private=private,
            until_unix_ms=None,
            limits=NO_LIMITS,
            observe=False,
            encoded_slash=False,
            owner=None,
            reason=None,
            carriage=self._policy.carriage,
            websocket=asked.websocket,
        )
        return rule, "{" + ", ".join(words) + "}"

    def _acknowledgements(self) -> list[str]:
        meant = []
        if "." not in self._request.host and ":" not in self._request.host:
            meant.append("single_label")
        if self._request.port in SERVICE_PORTS:
            meant.append("service_port")
        return [f"acknowledge: {_list(meant)}"] if meant else []

    def _fresh_id(self) -> str:
        base = "allow-" + self._request.host.replace(".", "-").replace(":", "-").strip("-")[:40]
        return base if base not in self._policy.rules else f"{base}-2"

    def _with_private(self, rule: RuleSpec) -> Iterator[_Candidate]:
        ranges = self._private_ranges()
        if ranges and rule.rule_id in self._own_rules():
            listed = _list(_range_text(one) for one in (*rule.private, *ranges))
            yield self._change(rule, f"write `private: {listed}`", private=(*rule.private, *ranges))

    def _private_ranges(self) -> tuple[AddressRange, ...]:
        """The addresses of the answer that are not public, one range each."""
        literal = classify(self._request.host)
        is_literal = literal.address_class is not AddressClass.UNPARSABLE
        answer = [literal] if is_literal else [classify(one) for one in self._addresses]
        texts = [one.text for one in answer if one.address_class is not AddressClass.PUBLIC]
        ranges = [parse_range(f"{text}/{128 if ':' in text else 32}") for text in texts]
        return tuple(one for one in ranges if one is not None)

    def _without_denial(self) -> Iterator[_Candidate]:
        rule_id = self._verdict.rule_id
        denied = next((one for one in self._spec.deny if one.rule_id == rule_id), None)
        if denied is None:
            return
        rest = tuple(one for one in self._spec.deny if one is not denied)
        what = denied.hosts[0].text if len(denied.hosts) == 1 else "what names this host"
        text = f"take `{what}` out of deny rule {denied.rule_id}"
        edit = Edit(text, denied.file or self._spec.file, denied.position.line)
        yield replace(self._spec, deny=rest), edit

    def _new_profile(self) -> Iterator[_Candidate]:
        for rule in self._spec.rules:
            made = ProfileSpec(self._profile, _NOBODY, ((rule.rule_id, _NOBODY),))
            grown = replace(self._spec, profiles=(*self._spec.profiles, made))
            if self._names_host(rule):
                text = f"a new profile `{self._profile}: [{rule.rule_id}]`"
                yield grown, Edit(text, rule.file or self._spec.file, rule.position.line)

    def _names_host(self, rule: RuleSpec) -> bool:
        alone = replace(self._spec, rules=(rule,), profiles=())
        near = nearest_rule(alone, "", self._request.host)
        return near is not None and near.why.startswith("names this host")

    def _without_demands(self) -> Iterator[_Candidate]:
        profile = self._profile_spec()
        if profile is not None:
            text = "a worker that meets what is `unmet` above; or drop that from `requires`"
            yield self._with_profile(replace(profile, requires=None)), self._at(text, profile)

    def _change(self, rule: RuleSpec, text: str, **fields: object) -> _Candidate:
        changed = replace(rule, **fields)  # type: ignore[arg-type]
        rules = tuple(changed if one is rule else one for one in self._spec.rules)
        edit = Edit(
            f"in rule {rule.rule_id}: {text}", rule.file or self._spec.file, rule.position.line
        )
        return replace(self._spec, rules=rules), edit

    def _at(self, text: str, profile: ProfileSpec) -> Edit:
        return Edit(text, profile.file or self._spec.file, profile.position.line)

    def _with_profile(self, changed: ProfileSpec, spec: PolicySpec | None = None) -> PolicySpec:
        whole = spec or self._spec
        profiles = tuple(changed if one.name == changed.name else one for one in whole.profiles)
        return replace(whole, profiles=profiles)

    def _profile_spec(self) -> ProfileSpec | None:
        return next((one for one in self._spec.profiles if one.name == self._profile), None)

    def _own_rules(self) -> frozenset[str]:
        profile = self._profile_spec()
        return frozenset(() if profile is None else (name for name, _ in profile.rule_ids))


def near_words(policy: CompiledPolicy, request: EgressRequest, verdict: Verdict) -> str | None:
    """Which rule came nearest, where the verdict names none."""
    if verdict.reason is not Reason.HOST_NOT_ALLOWED or verdict.rule_id is not None:
        return None
    near = nearest_rule(policy.spec, request.requester.profile, request.host)
    if near is None:
        return None
    rule = near.rule
    owner = "" if rule.owner is None else f", owner {rule.owner}"
    place = f"{rule.file or policy.file}:{rule.position.line}"
    return f"{rule.rule_id} at {place} {near.why}{owner}"


def _path_pattern(form: str) -> PathPattern | None:
    """A pattern for exactly this path; None if it holds what patterns mean otherwise."""
    try:
        return None if "*" in form else parse_path_pattern(form)
    except ValueError:
        return None


def _range_text(one: AddressRange) -> str:
    bits = 32 if one.version == 4 else 128
    return f"{format_address(one.version, one.low)}/{bits - (one.high - one.low).bit_length()}"


def _list(words: Iterable[object]) -> str:
    return "[" + ", ".join(str(word) for word in words) + "]"


def _quoted(text: str) -> str:
    return f'"{text}"' if ":" in text else text
