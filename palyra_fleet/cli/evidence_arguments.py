"""The flags of `worker run` that say who vouches for the worker: exactly one way for each run."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.worker.evidence_sources import (
    CertificateEvidence,
    JoinTokenEvidence,
    ProvenanceEvidence,
    ServiceAccountEvidence,
)
from palyra_fleet.worker.launcher import EvidenceSource, Launcher


def add_evidence_arguments(verb: ArgumentParser) -> None:
    how = verb.add_argument_group(
        "who vouches for the worker", "one of these; see docs/attestation.md"
    )
    one = how.add_mutually_exclusive_group()
    one.add_argument(
        "--launcher-key",
        type=Path,
        metavar="FILE",
        help="an enrolled launcher's key; with --fleet: default the key this machine paired with",
    )
    one.add_argument(
        "--certificate", type=Path, metavar="FILE", help="x509pop: PEM chain, leaf first"
    )
    one.add_argument("--join-token-file", type=Path, metavar="FILE", help="join_token")
    one.add_argument(
        "--service-account-token", type=Path, metavar="FILE", help="k8s_psat: the projected token"
    )
    how.add_argument("--certificate-key", type=Path, metavar="FILE", help="with --certificate: PEM")
    how.add_argument("--join-as", type=types.name, help="with --join-token-file: its identity")
    how.add_argument("--cluster", type=types.name, help="with --service-account-token: its name")
    how.add_argument(
        "--provenance",
        type=Path,
        metavar="FILE",
        help="with --launcher-key, oci_dsse: the image's provenance in a DSSE envelope",
    )


def add_keep_env(verb: ArgumentParser) -> None:
    verb.add_argument(
        "--keep-env",
        action="append",
        default=[],
        metavar="NAME",
        help="pass on this variable although it may make the program run other code "
        "(LD_PRELOAD, NODE_OPTIONS, PYTHONPATH …; may be repeated)",
    )


def evidence_source(arguments: Namespace, own_key: SigningKey | None) -> EvidenceSource:
    """`own_key` vouches where nothing is named. Raises KeyFileError, or Trouble for a flag that is
    missing."""
    if arguments.certificate is not None:
        key = _beside(arguments.certificate_key, "--certificate", "--certificate-key")
        return CertificateEvidence(arguments.certificate, key)
    if arguments.join_token_file is not None:
        name = _beside(arguments.join_as, "--join-token-file", "--join-as")
        return JoinTokenEvidence(arguments.join_token_file, name)
    if arguments.service_account_token is not None:
        cluster = _beside(arguments.cluster, "--service-account-token", "--cluster")
        return ServiceAccountEvidence(arguments.service_account_token, cluster)
    named = arguments.launcher_key
    key = own_key if named is None else SigningKey.load(named)
    if key is None:
        raise Trouble(
            ExitCode.YOURS,
            "nobody vouches for this worker",
            "no launcher's key, certificate or token was named",
            "pass --launcher-key FILE (`palyra-fleet launcher key FILE` makes one), or another",
        )
    launcher = Launcher(key)
    if arguments.provenance is not None:
        return ProvenanceEvidence(launcher, arguments.provenance)
    return launcher


def secret_places(arguments: Namespace) -> tuple[Path, ...]:
    """The directories of key and token files, which an isolated program must not see."""
    files = (arguments.launcher_key, arguments.certificate_key, arguments.join_token_file)
    token = arguments.service_account_token
    return tuple(file.parent for file in (*files, token) if file is not None)


def _beside[Value](value: Value | None, flag: str, missing: str) -> Value:
    if value is None:
        raise Trouble(
            ExitCode.YOURS, "a flag is missing", f"{flag} needs {missing} beside it", "add it"
        )
    return value
