"""From the bytes of a policy file to a policy that may be put in force.

`load_policy` is pure: it reads, compiles and runs the embedded tests, and either returns a
`CompiledPolicy` or raises `PolicyFileError` with every problem. `load_policy_file` adds the reading
of the file and is the only place of the package, beside `policy.live`, that touches the disk.
"""

from pathlib import Path

from palyra_egress.policy.compile import CompiledPolicy, compile_policy, policy_digest
from palyra_egress.policy.document import MAX_BYTES
from palyra_egress.policy.errors import PolicyFileError, Position, Problem, ProblemCode
from palyra_egress.policy.policy_tests import run_tests
from palyra_egress.policy.reader import read_policy


def load_policy(source: bytes, file: str, *, with_tests: bool = True) -> CompiledPolicy:
    """The policy that `source` spells; `file` is the name that problems and verdicts report."""
    policy = compile_policy(read_policy(source, file), policy_digest(source))
    failures = run_tests(policy) if with_tests else []
    if failures:
        raise PolicyFileError(failures)
    return policy


def read_policy_bytes(path: Path) -> bytes:
    """The file's bytes, at most one more than a policy may have; raises `PolicyFileError`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        what = error.strerror or type(error).__name__
        problem = Problem(str(path), Position(), ProblemCode.UNREADABLE, what, "a readable file")
        raise PolicyFileError([problem]) from error


def load_policy_file(path: str | Path) -> CompiledPolicy:
    """Reads, compiles and tests one policy file; raises `PolicyFileError` with all problems."""
    place = Path(path)
    return load_policy(read_policy_bytes(place), str(place))
