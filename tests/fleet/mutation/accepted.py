"""Mutants that may live, by their name, each with its reason: what they change, nobody can see.

A name that is no mutant's any more is an error, so that this list and the code stay together.
"""

_FAILED_AT = "worker.failed_at_attestation_epoch"
_NEWER = "candidate.attestation_epoch <= confined.attestation_epoch"
_HOLDS = "now_unix_ms >= candidate.attested_until_unix_ms"
_ATTESTED_AFTER = "a quarantine drops the candidate, so one that is there was attested after it"
_ENDED = "(lease_id, fence) == (worker.last_lease_id, worker.last_fence)"

ACCEPTED: dict[str, str] = {
    f"leasing._current_lease: lease is None and {_ENDED} -> {_ENDED}": (
        "a live lease is the worker's last (invariant 2), and was returned two lines before"
    ),
    (
        f"admission.release: candidate is None or {_NEWER} or {_HOLDS}"
        f" -> candidate is None or {_HOLDS}"
    ): _ATTESTED_AFTER,
    f"admission.release: {_NEWER} -> {_NEWER.replace('<=', '<')}": _ATTESTED_AFTER,
    (
        f"admission.reverify: worker.proof.attestation_epoch <= {_FAILED_AT}"
        f" -> worker.proof.attestation_epoch < {_FAILED_AT}"
    ): "work fails only with a quarantine, whose release took newer evidence",
}
"""`module.function: text -> text` of a mutant, and why it may live."""
