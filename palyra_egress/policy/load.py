"""From the bytes of policy files to a policy that may be put in force.

`load_policy` is pure: it reads one file, compiles it and runs the embedded tests, and either
returns a `CompiledPolicy` or raises `PolicyFileError` with every problem. `read_files` adds the
reading of a file and of what it includes, within bounds; `load_files` makes the policy of them.
Only this module and `policy.live` touch the disk.

An include is resolved against the directory of the including file as it is named, and what it leads
to (symlinks followed) must be a regular file inside that directory's tree. A file that two files
include is read once. Bounds: `MAX_INCLUDE_DEPTH` levels below the outermost file, `MAX_FILES` files
and `MAX_TOTAL_BYTES` in all, each file `MAX_BYTES`.
"""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from palyra_egress.policy.compile import CompiledPolicy, compile_policy, files_digest
from palyra_egress.policy.compose import check_references, compose
from palyra_egress.policy.document import MAX_BYTES
from palyra_egress.policy.errors import PolicyFileError, Problem, ProblemCode, Problems
from palyra_egress.policy.policy_tests import run_tests
from palyra_egress.policy.reader import read_part
from palyra_egress.policy.schema import PolicyPart
from palyra_fleet.strict_yaml.document import Position

MAX_INCLUDE_DEPTH: Final = 4
MAX_FILES: Final = 32
MAX_TOTAL_BYTES: Final = 2 * MAX_BYTES
_ATTEMPTS: Final = 3
_PASSING: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE}
)

type Stamp = tuple[int, int, int, int, int, str]


class _IncludeRefused(Exception):
    """An include that leads nowhere we go; the text says where."""


class _Cycle(Exception):
    """A file that includes itself, by whatever way; the text is the way."""


def is_at_rest(looks: Mapping[Path, Stamp | None]) -> bool:
    """False if any of these files is another by now."""
    return all(look(path) == stamp for path, stamp in looks.items())


def look(path: Path) -> Stamp | None:
    """What identifies a file's present content without reading it; None if it is gone."""
    try:
        real = path.resolve()
        found = real.stat()
    except OSError:
        return None
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times, str(real))


@dataclass(slots=True)
class PolicyFiles:
    """The files of one policy, in reading order, with what is wrong with them.

    `sources` are (name relative to the outermost file's directory, bytes). `looks` has every path
    that was looked at, also those that could not be read, as it was just before it was read.
    `may_pass`: one could not be read, and no file will show when it can be.
    """

    file: str
    problems: Problems
    sources: list[tuple[str, bytes]] = field(default_factory=list)
    parts: list[PolicyPart] = field(default_factory=list)
    looks: dict[Path, Stamp | None] = field(default_factory=dict)
    is_whole: bool = True
    may_pass: bool = False

    @property
    def digest(self) -> str:
        return files_digest(self.sources)


def may_pass(error: BaseException) -> bool:
    """Whether an error goes back to something that may be over with nothing changed in any file, as
    when descriptors have run out: then trying again is worth it."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno in _PASSING:
            return True
        at = at.__cause__ or at.__context__
    return False


def _inside(path: Path, tree: Path) -> Path:
    """Where an include really lies: a regular file inside the tree of a directory."""
    real = path.resolve(strict=True)
    if not real.is_relative_to(tree.resolve(strict=True)):
        raise _IncludeRefused(f"{path} leads out of the directory of the file that includes it")
    if not stat.S_ISREG(real.stat().st_mode):
        raise _IncludeRefused(f"{path} is no regular file")
    return real


def _read_real(real: Path) -> bytes:
    """At most one byte more than a policy may have; never a link, never a wait for a writer."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(real, flags), "rb") as file:
        return file.read(MAX_BYTES + 1)


class _Collector:
    """Reads the files of one policy, depth-first."""

    def __init__(self, path: Path, file: str) -> None:
        self.path = path
        self.files = PolicyFiles(file, Problems(file))
        self._seen: set[str] = set()  # real paths; read once, whoever includes them
        self._open: list[tuple[str, str]] = []  # real paths and names from the outermost inwards
        self._total_bytes = 0

    def collect(self) -> PolicyFiles:
        stamp = self.files.looks[self.path] = look(self.path)
        real = self.files.file if stamp is None else stamp[-1]
        source = read_policy_bytes(self.path, self.files.file)
        self._add(self.path, self.files.file, "", real, source)
        return self.files

    def _add(self, path: Path, file: str, name: str, real: str, source: bytes) -> None:
        """One file whose bytes are known, after everything that it includes."""
        self._seen.add(real)
        self._open.append((real, file))
        self._total_bytes += len(source)
        problems = self.files.problems.of(file)
        part = read_part(source, problems)
        for text, position in () if part is None else part.includes:
            try:
                self._include(path.parent, name, text)
            except _IncludeRefused as refused:
                self._refuse(file, position, ProblemCode.BAD_INCLUDE, str(refused))
            except _Cycle as cycle:
                self._refuse(file, position, ProblemCode.INCLUDE_CYCLE, str(cycle))
            except OSError as error:
                self.files.may_pass |= may_pass(error)
                what = f"{path.parent / text}: {error.strerror or type(error).__name__}"
                self._refuse(file, position, ProblemCode.UNREADABLE, what, "a readable file")
        self._open.pop()
        self.files.sources.append((name, source))
        if part is None:
            self.files.is_whole = False
        else:
            self.files.parts.append(part)

    def _refuse(
        self,
        file: str,
        position: Position,
        code: ProblemCode,
        message: str,
        expected: str | None = None,
    ) -> None:
        self.files.is_whole = False
        self.files.problems.of(file).add(position, code, message, expected=expected)

    def _include(self, directory: Path, outer_name: str, text: str) -> None:
        path = directory / text
        self.files.looks.setdefault(path, look(path))
        place = _inside(path, directory)
        real = str(place)
        on_the_way = [one for one, _ in self._open]
        if real in on_the_way:
            names = [shown for _, shown in self._open[on_the_way.index(real) :]]
            raise _Cycle(" → ".join([*names, names[0]]))
        if real in self._seen:
            return
        if len(self._open) > MAX_INCLUDE_DEPTH:
            raise _IncludeRefused(f"{path} is included more than {MAX_INCLUDE_DEPTH} levels deep")
        if len(self._seen) >= MAX_FILES:
            raise _IncludeRefused(f"{path}: a policy has at most {MAX_FILES} files")
        source = _read_real(place)
        if self._total_bytes + len(source) > MAX_TOTAL_BYTES:
            raise _IncludeRefused(f"{path}: the files have more than {MAX_TOTAL_BYTES} bytes")
        name = "/".join([*outer_name.split("/")[:-1], text])
        self._add(path, str(path), name, real, source)


def read_files(path: Path, file: str) -> PolicyFiles:
    """A file and all that it includes, `file` being how problems call the outermost.

    Raises `PolicyFileError` if the outermost cannot be read; all other problems are in the answer.
    """
    return _Collector(path, file).collect()


def load_files(files: PolicyFiles, *, with_tests: bool = True) -> CompiledPolicy:
    """The policy of files that were read; raises `PolicyFileError` with all problems."""
    problems = files.problems
    if not files.parts or files.parts[-1].spec.file != files.file:
        problems.raise_all()
    spec = compose(files.parts, problems)
    if files.is_whole:
        unread = frozenset(name for part in files.parts for name in part.meant)
        check_references(spec, problems, unread)
    if problems.found:
        problems.raise_all()
    policy = compile_policy(spec, files.digest)
    failures = run_tests(policy) if with_tests else []
    if failures:
        raise PolicyFileError(failures)
    return policy


def load_policy(source: bytes, file: str, *, with_tests: bool = True) -> CompiledPolicy:
    """The policy that `source` spells; `file` is the name that problems and verdicts report.

    Bytes have no directory: a source that includes files is refused.
    """
    files = PolicyFiles(file, Problems(file), [("", source)])
    part = read_part(source, files.problems)
    if part is not None:
        files.parts.append(part)
        for text, position in part.includes:
            files.is_whole = False
            files.problems.add(
                position,
                ProblemCode.BAD_INCLUDE,
                f"{text!r} is included, and this text has no directory to look for it",
                expected="a policy in one piece, or the path of its file",
            )
    return load_files(files, with_tests=with_tests)


def load_sources(
    sources: Sequence[tuple[str, bytes]], file: str, *, with_tests: bool = True
) -> CompiledPolicy:
    """The policy of (name, bytes) in reading order, as `PolicyFiles.sources` once gave them: what
    they include is among them, and is not looked for again."""
    outermost = Path(file)
    files = PolicyFiles(file, Problems(file), list(sources))
    for name, source in sources:
        shown = str(outermost.parent / name) if name else file
        part = read_part(source, files.problems.of(shown))
        if part is not None:
            files.parts.append(part)
    files.is_whole = len(files.parts) == len(sources)
    return load_files(files, with_tests=with_tests)


def read_policy_bytes(path: Path, file: str | None = None) -> bytes:
    """The file's bytes, at most one more than a policy may have; raises `PolicyFileError`."""
    try:
        with path.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        what = error.strerror or type(error).__name__
        where = str(path) if file is None else file
        problem = Problem(where, Position(), ProblemCode.UNREADABLE, what, "a readable file")
        raise PolicyFileError([problem]) from error


def read_files_at_rest(path: Path) -> PolicyFiles:
    """A policy's files as they all were at one time; raises `PolicyFileError`."""
    for _ in range(_ATTEMPTS):
        files = read_files(path, str(path))
        if len(files.looks) == 1 or is_at_rest(files.looks):
            return files
    what = "the files change while they are read"
    problem = Problem(str(path), Position(), ProblemCode.UNREADABLE, what, "files at rest")
    raise PolicyFileError([problem])


def load_policy_file(path: str | Path, *, with_tests: bool = True) -> CompiledPolicy:
    """Reads, compiles and tests a policy file and what it includes; raises `PolicyFileError`."""
    return load_files(read_files_at_rest(Path(path)), with_tests=with_tests)
