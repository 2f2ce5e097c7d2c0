"""Mutants that may live, by their name, each with its reason: what they change, nobody can see.

A name that is no mutant's any more is an error, so that this list and the code stay together.
"""

_ENDED = "(lease_id, fence) == (worker.last_lease_id, worker.last_fence)"

ACCEPTED: dict[str, str] = {
    f"leasing._current_lease: lease is None and {_ENDED} -> {_ENDED}": (
        "a live lease is the worker's last (invariant 2), and was returned two lines before"
    ),
    "grants.create_grant: grant.worker_id or '' -> grant.worker_id": (
        "nobody's id is None, and nobody's is empty: only the type of the index asks for one"
    ),
}
"""`module.function: text -> text` of a mutant, and why it may live."""
