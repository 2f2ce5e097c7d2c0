"""The ways back: an earlier generation of the node state, and a file of the Rust system.

Neither brings back what time has settled. From an earlier generation no code returns, and requests
that were undecided or uncollected are expired, since they may have been decided, spent or collected
after it was written; a device simply pairs again. An imported file has the same maps without
`schema_version`: codes stand in it in clear and are kept as keyed hashes, private keys are dropped,
and so is every field this version does not know, each named in the answer. Times: Unix ms.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from palyra_fleet.identity.records import CodeMethod, RequestState
from palyra_fleet.nodes.generations import GenerationFile, WriteFailed
from palyra_fleet.nodes.pruning import settled
from palyra_fleet.nodes.runtime_file import (
    ADAPTERS,
    FILE_NAME,
    SECTIONS,
    NotRuntimeState,
    PersistedNodeRuntimeState,
    decode_record,
    encode_record,
    parse,
    render,
    section_of,
    without_unknown_fields,
)
from palyra_fleet.nodes.runtime_state import LOCK_NAME
from palyra_fleet.store import state_directory
from palyra_fleet.store.protocol import StateUnusable
from palyra_fleet.wire.keys import KeyFileError

CodeHash = Callable[[CodeMethod, str], str]


@dataclass(frozen=True, slots=True)
class Recovered:
    """What is in place now. `dropped`: fields that were left out, by their place."""

    state: PersistedNodeRuntimeState
    dropped: tuple[str, ...] = ()


def restore(state_dir: Path, source: Path, now_unix_ms: int) -> Recovered:
    """Put an earlier generation in place. Raises StateUnusable; the fleet must not be running."""
    with _held(state_dir) as file:
        content = _read(file, source)
        try:
            state = parse(content)
        except NotRuntimeState as error:
            raise StateUnusable(f"{source} cannot be used either: {error}") from error
        state.active_pairing_codes.clear()
        for request in list(state.pairing_requests.values()):
            if not request.state.finished:
                state.pairing_requests[request.request_id] = replace(
                    request,
                    state=RequestState.EXPIRED,
                    decision_reason="the node state was restored from an earlier generation",
                )
        return _put(file, state, now_unix_ms)


def import_foreign(
    state_dir: Path, source: Path, code_hash: CodeHash, now_unix_ms: int
) -> Recovered:
    """Take over a file of the Rust system, where no state is yet. Raises StateUnusable."""
    with _held(state_dir) as file:
        if os.path.lexists(file.path):
            raise StateUnusable(f"{file.path} is there already; an import begins from nothing")
        state, dropped = _foreign(_read(file, source), code_hash, str(source))
        return replace(_put(file, state, now_unix_ms), dropped=dropped)


def _foreign(
    content: bytes, code_hash: CodeHash, place: str
) -> tuple[PersistedNodeRuntimeState, tuple[str, ...]]:
    try:
        raw: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise StateUnusable(f"{place}: is not JSON") from None
    if not isinstance(raw, dict) or not all(isinstance(m, dict) for m in raw.values()):
        raise StateUnusable(f"{place}: expected an object of maps: {', '.join(SECTIONS)}")
    dropped = sorted(set(raw) - set(SECTIONS))
    state = PersistedNodeRuntimeState()
    for section in SECTIONS:
        for key, value in raw.get(section, {}).items():
            if section == "active_pairing_codes":
                key, value = _hashed(key, value, code_hash, place)  # noqa: PLW2901
            known, left_out = without_unknown_fields(ADAPTERS[section], value)
            dropped += [f"{section}.*{name}" for name in left_out]
            try:
                section_of(state, section)[key] = decode_record(section, key, known)
            except NotRuntimeState as error:
                raise StateUnusable(f"{place}: {error}") from None
    return state, tuple(dict.fromkeys(dropped))


def _hashed(key: str, value: Any, code_hash: CodeHash, place: str) -> tuple[str, Any]:
    """A code record with its keyed hash in the place of its code. The code is in no message."""
    if not isinstance(value, dict) or value.get("method") not in {"pin", "qr"}:
        raise StateUnusable(f"{place}: active_pairing_codes: method must be pin or qr")
    code = value.get("code", key)
    if not isinstance(code, str):
        raise StateUnusable(f"{place}: active_pairing_codes: code must be text")
    digest = code_hash(CodeMethod(value["method"]), code)
    rest = {name: inner for name, inner in value.items() if name != "code"}
    return digest, {"code_hash": digest, **rest}


def _put(file: GenerationFile, state: PersistedNodeRuntimeState, now_unix_ms: int) -> Recovered:
    for request in settled(state.capability_requests.values(), now_unix_ms):
        state.capability_requests[request.request_id] = request
    encoded = {
        section: {
            key: encode_record(section, record)
            for key, record in section_of(state, section).items()
        }
        for section in SECTIONS
    }
    state.generation += 1
    try:
        file.write(render(state.generation, encoded))
    except WriteFailed as error:
        raise StateUnusable(str(error)) from error
    return Recovered(state)


def _read(file: GenerationFile, source: Path) -> bytes:
    try:
        content = file.read(source)
    except KeyFileError as error:
        raise StateUnusable(str(error)) from error
    if content is None:
        raise StateUnusable(f"{source}: there is no such file; name a copy of the nodes' state")
    return content


class _held:  # noqa: N801 (reads as what it does)
    """The state directory, held against a running fleet."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._lock = -1

    def __enter__(self) -> GenerationFile:
        state_directory.prepare(self._state_dir)
        self._lock = state_directory.lock(self._state_dir, LOCK_NAME)
        return GenerationFile(self._state_dir / FILE_NAME)

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)
