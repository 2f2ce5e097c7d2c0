"""Every fuzz target for a bounded number of inputs: with atheris where it imports, else Hypothesis.

The targets under Hypothesis run always, so that nothing hangs on a package that may be missing.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS

ROOT = Path(__file__).resolve().parents[2]
RUNS = 300
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


def mutated(seed: bytes) -> st.SearchStrategy[bytes]:
    """A seed with a piece of it replaced by other bytes."""
    places = st.integers(0, len(seed))
    return st.builds(
        lambda start, length, piece: seed[:start] + piece + seed[start + length :],
        places,
        st.integers(0, 8),
        st.binary(max_size=8) | st.sampled_from([b"\0", b"\r\n", b"%2e", b"\xe3\x80\x82", b"'"]),
    )


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_seeds_that_pass(name: str) -> None:
    assert SEEDS[name]
    for seed in (b"", *SEEDS[name]):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_a_target_holds_for_any_bytes(name: str, data: st.DataObject) -> None:
    seeds = [mutated(seed) for seed in SEEDS[name]]
    TARGETS[name](data.draw(st.one_of(st.binary(max_size=300), *seeds, *seeds)))


@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris is not installed: no coverage-guided fuzzing")
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_under_atheris(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_policy", name]
    done = subprocess.run(
        [*command, f"-runs={RUNS}", "-max_len=512", f"-artifact_prefix={tmp_path}/"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
