"""Plays tests on mutants: everything is imported and collected once, each mutant is a forked child.

`Players` is a plugin that takes the place of pytest's loop. A child puts the mutant's code into the
function, plays the tests until the first fails, and says which one. What killed the last mutants is
played first, then the module's own tests, then the others by the time they took on the unchanged
fleet, which is played before everything else and must pass: each test in a child of its own, so
that none is timed with what another has warmed. Hypothesis plays the same examples for each, and
does not shrink.

Only a test that fails has noticed a mutant. A test that a limit ends may be endless, or only slow,
and a child that dies says nothing: it is left out, and the others go on in a new child. What nobody
but a limit has noticed is said to be so (`Verdict.ended`).
"""

import gc
import importlib
import inspect
import os
import resource
import signal
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import ceil
from operator import attrgetter
from typing import NoReturn

import pytest
from hypothesis import Phase, settings

from tests.fleet.mutation.mutants import Mutant

WITHIN_S = 300
CPU_S = 5.0
USUAL = 10
"""A test that takes `CPU_S` more of the processor than `USUAL` times what it takes on the unchanged
fleet is ended. One that waits is given `WITHIN_S`, since a loaded machine is no reason."""

ENDED_AT_MOST = 3
"""So many tests of a mutant are ended by a limit, then it is given up."""

SLOW_S = 1.0
"""A test that takes longer than that waits for the others, whatever it killed."""

MEMORY_BYTES = 4 << 30


class UnchangedFailsError(Exception):
    """A test fails on the unchanged fleet, so nothing can be said."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`killer` is the test that failed, None if none did; `ended` are those that a limit ended, or
    that their child did not survive."""

    mutant: Mutant
    killer: str | None
    ended: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Round:
    """What became of one child: all tests passed, or the named one failed or was ended."""

    test: str | None
    failed: bool
    took_s: dict[str, float]


@dataclass(slots=True)
class Players:
    """`on_verdict` is told each verdict at once."""

    mutants: Iterable[Mutant]
    on_verdict: Callable[[Verdict], None]
    cpu_s: float = CPU_S
    _took_s: dict[str, float] = field(default_factory=dict)
    _killers: list[str] = field(default_factory=list)
    """The latest last."""

    def pytest_configure(self) -> None:
        settings.register_profile(
            "mutants",
            settings.get_profile("suite"),
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("a module of tests cannot be imported")
        gc.freeze()  # children then share the memory of what was imported
        for item in session.items:
            alone = self._play([item], lambda: None)
            if alone.test is not None:
                raise UnchangedFailsError(alone.test)
            self._took_s |= alone.took_s
        for mutant in self.mutants:
            began = time.monotonic()
            killer, ended = self._judge(session.items, mutant)
            if killer is not None:
                self._killers.append(killer)
            self.on_verdict(Verdict(mutant, killer, ended, time.monotonic() - began))
        return True

    def _judge(
        self, items: Sequence[pytest.Item], mutant: Mutant
    ) -> tuple[str | None, tuple[str, ...]]:
        change = _Change(self._function(mutant), mutant.code)
        left = self._in_order(items, mutant)
        ended: list[str] = []
        while left and len(ended) < ENDED_AT_MOST:
            played = self._play(left, change)
            if played.test is None or played.failed:
                return played.test, tuple(ended)
            ended.append(played.test)
            names = [item.nodeid for item in left]
            del left[: names.index(played.test) + 1]  # those before it passed
        return None, tuple(ended)

    @staticmethod
    def _function(mutant: Mutant) -> types.FunctionType:
        module = importlib.import_module(mutant.imported_as)
        *classes, name = mutant.function.split(".")
        owner = attrgetter(".".join(classes))(module) if classes else module
        found = inspect.getattr_static(owner, name)
        found = inspect.unwrap(getattr(found, "fget", getattr(found, "__func__", found)))
        assert isinstance(found, types.FunctionType), mutant
        return found

    def _in_order(self, items: Sequence[pytest.Item], mutant: Mutant) -> list[pytest.Item]:
        turn = {killer: number for number, killer in enumerate(self._killers, start=1)}

        def place(item: pytest.Item) -> tuple[bool, int, bool, float]:
            took_s = self._took_s[item.nodeid]
            others = item.path.stem != f"test_{mutant.path.stem}"
            return took_s >= SLOW_S, -turn.get(item.nodeid, 0), others, took_s

        return sorted(items, key=place)

    def _play(self, items: Sequence[pytest.Item], change: Callable[[], None]) -> _Round:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _play_in_child(items, change, _Teller(writing, self.cpu_s, self._took_s))
        os.close(writing)
        took_s: dict[str, float] = {}
        test = items[0].nodeid
        with os.fdopen(reading) as lines:
            for line in lines:
                test, _, seconds = line.rstrip("\n").rpartition("\t")
                if seconds:
                    took_s[test] = float(seconds)
        _, status = os.waitpid(child, 0)
        failed = os.waitstatus_to_exitcode(status) == _FAILED
        return _Round(None if status == 0 else test, failed, took_s)


_FAILED = 1
_DIED = 2


@dataclass(frozen=True, slots=True)
class _Change:
    function: types.FunctionType
    code: types.CodeType

    def __call__(self) -> None:
        self.function.__code__ = self.code


@dataclass(slots=True)
class _Teller:
    """Says which test begins and how long it took, and ends the child at the first that failed."""

    told: int
    cpu_s: float
    usual_s: dict[str, float]
    _took_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        os.write(self.told, f"{nodeid}\t\n".encode())
        usual_s = self.usual_s.get(nodeid)
        if usual_s is not None:
            signal.setitimer(signal.ITIMER_PROF, self.cpu_s + USUAL * usual_s)
            signal.alarm(WITHIN_S + USUAL * ceil(usual_s))

    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
            return
        os._exit(_DIED if call.excinfo.errisinstance(MemoryError) else _FAILED)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._took_s[report.nodeid] += report.duration
        if report.when == "teardown":
            os.write(self.told, f"{report.nodeid}\t{self._took_s[report.nodeid]}\n".encode())


def _play_in_child(
    items: Sequence[pytest.Item], change: Callable[[], None], teller: _Teller
) -> NoReturn:
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        change()
        items[0].config.pluginmanager.register(teller)
        for item, following in zip_longest(items, items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        os._exit(0)
    finally:
        os._exit(_DIED)
