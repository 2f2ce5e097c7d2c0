"""The arguments that say where bound secrets come from; see docs/credentials.md."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from palyra_egress.credentials.settings import KvChoices, SecretSettings, secret_settings


def add_secret_arguments(parser: ArgumentParser) -> None:
    """For every command that serves."""
    group = parser.add_argument_group(
        "secrets", "where credentials that policies bind come from, besides `palyra-egress vault`"
    )
    group.add_argument(
        "--master-key-file",
        type=Path,
        metavar="FILE",
        help="the vault's master key (default: master.key in the proxy's state directory)",
    )
    group.add_argument(
        "--secrets-dir", type=Path, metavar="DIR", help="mounted files, which policies name file:…"
    )
    group.add_argument(
        "--secret-env",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable that policies may name as env:NAME (may be repeated)",
    )
    group.add_argument(
        "--kv-url", metavar="URL", help="HashiCorp Vault, for kv:…; https, or http to loopback"
    )
    group.add_argument("--kv-token-file", type=Path, metavar="FILE", help="read again on change")
    group.add_argument(
        "--kv-ca", type=Path, metavar="PEM", help="the CAs to trust (default: the public ones)"
    )
    group.add_argument("--kv-namespace", metavar="NAME", help="sent as X-Vault-Namespace")
    group.add_argument(
        "--kv-v1-mount",
        action="append",
        default=[],
        metavar="MOUNT",
        help="a mount that is KV version 1 (may be repeated; others are version 2)",
    )


def secrets_of(arguments: Namespace) -> SecretSettings:
    """What the arguments say. Raises SecretSettingsRefused."""
    return secret_settings(
        arguments.master_key_file,
        arguments.secrets_dir,
        arguments.secret_env,
        KvChoices(
            arguments.kv_url,
            arguments.kv_token_file,
            arguments.kv_ca,
            arguments.kv_namespace,
            frozenset(arguments.kv_v1_mount),
        ),
    )
