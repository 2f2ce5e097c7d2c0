"""Plays tests on mutants: everything is imported and collected once, each mutant is a forked child.

`Players` is a plugin that takes the place of pytest's loop. A child puts the mutant's code into the
function, plays the tests until the first fails, and says which one. What killed the last mutants is
played first, then the module's own tests, then the others by the time they took on the unchanged
fleet, which is played before everything else and must pass. Hypothesis plays the same examples for
each, and does not shrink. A child that hangs or dies was noticed by the test that it played.
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
from operator import attrgetter
from typing import NoReturn

import pytest
from hypothesis import Phase, settings

from tests.fleet.mutation.mutants import Mutant

WITHIN_S = 300
CPU_S = 5.0
"""A test that takes so much more of the processor than on the unchanged fleet does not end. One
that waits is given `WITHIN_S`, since a loaded machine is no reason."""

SLOW_S = 1.0
"""A test that takes longer than that waits for the others, whatever it killed."""

MEMORY_BYTES = 4 << 30


class UnchangedFailsError(Exception):
    """A test fails on the unchanged fleet, so nothing can be said."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`killer` is the test that failed, None if none did."""

    mutant: Mutant
    killer: str | None
    seconds: float


@dataclass(slots=True)
class Players:
    """`on_verdict` is told each verdict at once."""

    mutants: Iterable[Mutant]
    on_verdict: Callable[[Verdict], None]
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
        took_s: dict[str, float] = {}
        failed = self._play(session.items, lambda: None, took_s)
        if failed is not None:
            raise UnchangedFailsError(failed)
        self._took_s = took_s
        gc.freeze()  # children then share the memory of what was imported
        for mutant in self.mutants:
            began = time.monotonic()
            change = _Change(self._function(mutant), mutant.code)
            killer = self._play(self._in_order(session.items, mutant), change, {})
            if killer in self._took_s:
                self._killers.append(killer)
            self.on_verdict(Verdict(mutant, killer, time.monotonic() - began))
        return True

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

    def _play(
        self, items: Sequence[pytest.Item], change: Callable[[], None], took_s: dict[str, float]
    ) -> str | None:
        """Which test fails with this change, if one does. Fills in how long the others took."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _play_in_child(items, change, _Teller(writing, self._took_s))
        os.close(writing)
        test = "before any test"
        with os.fdopen(reading) as lines:
            for line in lines:
                test, _, seconds = line.rstrip("\n").rpartition("\t")
                if seconds:
                    took_s[test] = float(seconds)
        _, status = os.waitpid(child, 0)
        return None if status == 0 else test


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
    usual_s: dict[str, float]
    _took_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        os.write(self.told, f"{nodeid}\t\n".encode())
        if nodeid in self.usual_s:
            signal.setitimer(signal.ITIMER_PROF, CPU_S + 10 * self.usual_s[nodeid])

    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            os._exit(1)

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
        signal.alarm(WITHIN_S)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        change()
        items[0].config.pluginmanager.register(teller)
        for item, following in zip_longest(items, items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        os._exit(0)
    finally:
        os._exit(2)
